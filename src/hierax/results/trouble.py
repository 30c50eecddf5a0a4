"""Explanation of where the density of a program is not finite: subject, time, endpoint and the usual remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from hierax.data.sanitise import sanitise
from hierax.program.density import unwrap
from hierax.program.read import cached
from hierax.program.trace import site_log_prob
from hierax.results.place import describe_place
from hierax.results.solver import explain_solver
from hierax.results.uncertainty.derivative import explain_derivative

if TYPE_CHECKING:
    from hierax.results.fit import Evaluation

# The usual causes of a log density that is not finite, and what to do about them.
_REMEDY = (
    "usually a prediction of 0 under a proportional or log-normal error, a negative scale, a bioavailability, lag, "
    "rate or duration of a dose below 0, or starts far from the data. Add an additive error term, bound the prediction "
    "away from 0, keep dose parameters positive (exp or expit of a sum of effects), or change init="
)


def explain_non_finite(result: Evaluation) -> str:
    """Return a sentence that names the first data entry without a finite log density, and the usual remedy.

    The modes of the random effects are tried first, and then their reference point. Failures of ODE solvers, data
    outside the support of their distribution, and derivatives that are not finite are explained as such.
    """
    program = result.program

    def densities(pop: object, params: object, eta: object) -> dict[str, object]:
        run = program.run(sanitise(pop), params, eta)  # type: ignore[arg-type]
        return {name: site_log_prob(run.messages[name]) for name in program.sites.data}

    unsolved = explain_solver(result)
    if unsolved:
        return unsolved
    outside = _outside_support(result)
    if outside:
        return outside
    # Modes that are NaN themselves do not show where the trouble is.
    for eta in (result.eta, None) if np.isfinite(result.eta).all() else (None,):
        function = cached(program, ("trouble", eta is None), lambda: jax.jit(densities))
        for name, density in function(result.pop, result.params, eta).items():
            bad = ~np.isfinite(np.asarray(density))
            if bad.any():
                return f" Site '{name}' {_place(result, np.argwhere(bad)[0], bad)}: {_REMEDY}."
    return explain_derivative(result)


def _outside_support(result: Evaluation) -> str:
    """Return a sentence that names the first datum outside its distribution's support, such as 0 under a log-normal."""
    program = result.program

    def inside(pop: object, params: object) -> dict[str, object]:
        run = program.run(sanitise(pop), params, None)  # type: ignore[arg-type]
        out = {}
        for name, site in program.sites.data.items():
            mask, fn = unwrap(run.messages[name]["fn"])
            if not site.factor and fn.support is not None:
                good = fn.support(run.messages[name]["value"])
                out[name] = good if mask is None or jnp.shape(mask) != jnp.shape(good) else good | ~mask
        return out

    function = cached(program, "support", lambda: jax.jit(inside))
    for name, good in function(result.pop, result.params).items():
        bad = ~np.asarray(good)
        if bad.any():
            place = _place(result, np.argwhere(bad)[0], bad)
            kind = program.sites.data[name].distribution
            return (
                f" Site '{name}' {place}: the datum is outside the support of {kind} (0 under a log-normal, say). Drop "
                f"the record, mark it as censored (CENS), or use another distribution."
            )
    return ""


def _place(result: Evaluation, index: np.ndarray, bad: np.ndarray) -> str:
    return f"has no finite log density at {describe_place(result, index, bad)}"
