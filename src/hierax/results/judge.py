"""The error of a fit's ODE solutions, such as those on a frozen grid, as judged by an adaptive solver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from hierax.data.sanitise import sanitise
from hierax.dynamics.ode.adaptive import Adaptive
from hierax.dynamics.ode.grid import Grid
from hierax.dynamics.ode.march import OK
from hierax.infer.marginal.grids import relative_error
from hierax.program.trace import Alone

if TYPE_CHECKING:
    from hierax.results.fit import Evaluation


class _Comparing(Alone):
    """Solves every ODE by its own solver and by the judge, and records by how much the solutions differ."""

    def __init__(self, judge: Any):
        super().__init__(None)
        self.judge = judge
        self.errors: dict[str, Any] = {}

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "ode":
            return
        problem, placed = msg["args"]
        solver = msg["solver"]
        own = solver.states(problem, placed) if isinstance(solver, Grid) else solver.states(problem)
        right = self.judge.states(problem)
        floor = solver.floor if isinstance(solver, Grid) else Grid().floor
        solved = (own[1] == OK) & (right[1] == OK)
        self.errors[msg["name"]] = jnp.where(solved, relative_error(own[0], right[0], floor), jnp.nan)


def judge_solver(result: Evaluation, judge: Any = None) -> pd.DataFrame:
    """Return the relative error of every subject's ODE solution at its mode; see :meth:`Evaluation.judge_solver`."""
    if not result.program.sites.odes:
        raise ValueError("The program has no ODE, because it calls no solve_ode: there is no solver to judge.")
    if judge is None:
        import diffrax

        judge = Adaptive(diffrax.Kvaerno5(), rtol=1e-10, atol=1e-12, max_steps=4096)

    @jax.jit
    def compare(pop: Any, params: Any, eta: Any) -> dict[str, Any]:
        comparing = _Comparing(judge)
        with comparing:
            result.program.run(sanitise(pop), params, eta)
        return comparing.errors

    errors = compare(result.pop, result.params, result.eta)
    return pd.DataFrame(
        {name: np.asarray(error)[result.rows] for name, error in errors.items()},
        index=pd.Index(result.ids, name="subject"),
    )
