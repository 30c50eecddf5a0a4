"""The fields of a result that every kind of fit fills in the same way."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from hierax.infer.marginal.counts import count_observations
from hierax.infer.marginal.laplace import Laplace
from hierax.infer.marginal.objective import Evaluated, compiled_value
from hierax.infer.marginal.session import Session
from hierax.results.uncertainty.conditional import inverse_blocks


def evaluated_fields(session: Session, flat: np.ndarray, out: Evaluated) -> dict[str, Any]:
    """Return the fields of an evaluation: modes and likelihoods by the session's objective."""
    return {
        **_point(session, flat),
        "eta": np.asarray(out.eta),
        "value": np.asarray(out.value),
        "hessian": np.asarray(out.hessian),
        "codes": np.asarray(out.code),
    }


def sampled_fields(
    session: Session, flat: np.ndarray, moments: tuple[np.ndarray, np.ndarray], value: Any = np.nan
) -> dict[str, Any]:
    """Return the fields of a fit that knows each subject's distribution: means stand for modes.

    ``value`` is −log of each subject's marginal likelihood; by default there is none.
    """
    n = session.pop.n_subjects
    return {
        **_point(session, flat),
        "eta": moments[0],
        "value": np.broadcast_to(value, (n,)).copy(),
        "hessian": inverse_blocks(moments[1]),
        "codes": np.zeros(n, int),
        "moments": moments,
    }


def solver_error(session: Session) -> dict[str, float] | None:
    """Return the error of each ODE's grid when it was last looked at; None where there is no grid."""
    return None if session.grids is None else dict(session.grids.error)


def gaussian_constant(session: Session, flat: np.ndarray) -> float:
    """Return N·log 2π, N the number of Gaussian observations."""
    return _point(session, flat)["n_gaussian"] * float(np.log(2 * np.pi))


def with_modes(session: Session, flat: np.ndarray, out: Evaluated) -> Evaluated:
    """Add post-hoc modes of the joint density, for an estimator that has none of its own but wants them (FO)."""
    if not session.estimator.post_hoc:
        return out
    laplace = Laplace(newton=session.estimator.newton)
    value = compiled_value(session.program, laplace, session.layout.unravel)
    modes = value(jnp.asarray(flat), jnp.asarray(session.cold()), session.pop)
    return out._replace(eta=modes.eta, hessian=modes.hessian, code=modes.code)


def _point(session: Session, flat: np.ndarray) -> dict[str, Any]:
    params = session.layout.params(flat)
    count, gaussian = count_observations(session.program, session.pop, params)
    return {
        "session": session,
        "params": params,
        "flat": np.asarray(flat),
        "n_observations": count,
        "n_gaussian": gaussian,
    }
