"""Explanation of where an ODE could not be solved: subject, time and remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from hierax.data.sanitise import sanitise
from hierax.dynamics.ode import march
from hierax.infer.result import Result
from hierax.program.read import cached

if TYPE_CHECKING:
    from hierax.results.fit import Evaluation

# The result of a subject for each failure code of an ODE solver.
_RESULTS = {
    march.MAX_STEPS: Result.solver_max_steps,
    march.NON_FINITE: Result.solver_non_finite,
    march.NO_STEADY_STATE: Result.no_steady_state,
    march.NOT_LINEAR: Result.solver_not_linear,
}
# The cause and remedy of each failure code, as the end of a sentence.
_REMEDIES = {
    march.MAX_STEPS: (
        "the solver has run out of steps, so that the system may be stiff there. Use solver=hx.Adaptive(), which is "
        "implicit, or give more steps (Grid(steps=), Adaptive(max_steps=))"
    ),
    march.NON_FINITE: (
        "the right-hand side of the ODE is not finite, usually the power or log of a state that is 0 or negative, a "
        "division by 0, or starts far from the data. Bound what is raised or divided by, or change init="
    ),
    march.NO_STEADY_STATE: (
        "no steady state of its SS dose was found: the input may exceed what the system can eliminate, or a state is "
        "never eliminated (an AUC, say). Give the doses one by one instead of SS; or move a state that is never "
        "eliminated to a solve_ode of its own, with doses={} and the concentration as a function of time in args "
        "(pk.one_compartment(..., output='forcing')); it then starts at y0 at the SS record"
    ),
    march.NOT_LINEAR: (
        "the vector field is not linear in the states, or depends on t between records, and MatrixExponential() needs "
        "that. Use solver=hx.Grid()"
    ),
    march.STALE: (
        "the subject's records changed after the time grid of the solver was placed. Place the grid anew: drop "
        "pop.grids"
    ),
}


def solver_failures(result: Evaluation, at_reference: bool = False) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return by ODE the codes and times of failure of every subject, at the modes or the reference point."""
    program = result.program
    if not program.sites.odes:
        return {}

    def failures(pop: Any, params: Any, eta: Any) -> dict[str, tuple[Any, Any]]:
        run = program.run(sanitise(pop), params, eta)
        solutions = {name: run.messages[name]["value"] for name in program.sites.odes}
        return {name: (solution.code, solution.when) for name, solution in solutions.items()}

    function = cached(program, ("solver", at_reference), lambda: jax.jit(failures))
    found = function(result.pop, result.params, None if at_reference else result.eta)
    return {name: (np.asarray(code), np.asarray(when)) for name, (code, when) in found.items()}


def with_solver_codes(result: Evaluation) -> np.ndarray:
    """Return the subjects' codes, with the more specific ones of ODE solvers in place of ``non_finite``."""
    codes = np.array(result.codes)
    if not result.program.sites.odes or not np.any(codes == Result.non_finite):
        return codes
    for code, _ in solver_failures(result).values():
        for kind, name in _RESULTS.items():
            codes[(codes == Result.non_finite) & (code == kind)] = name
    return codes


def explain_solver(result: Evaluation) -> str:
    """Return a sentence that names the first subject whose ODE could not be solved, or an empty string."""
    for at_reference in (False, True):
        for name, (code, when) in solver_failures(result, at_reference).items():
            bad = np.flatnonzero((code != march.OK) & np.asarray(result.pop.subject_mask))
            if not bad.size:
                continue
            row = int(bad[0])
            subject = result.ids[int(np.searchsorted(result.rows, row))]
            at = f", time {when[row]:.4g}" if np.isfinite(when[row]) else ""
            return (
                f" ODE '{name}' has no solution for subject {subject}{at} ({bad.size} subjects in all): "
                f"{_REMEDIES[int(code[row])]}."
            )
    return ""
