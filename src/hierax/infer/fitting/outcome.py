"""The outcome of a fit, as every estimator returns it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd

from hierax.infer.blocks import inverse_blocks
from hierax.infer.marginal.counts import count_observations
from hierax.infer.marginal.objective import Evaluated, compiled_value
from hierax.infer.marginal.session import Session
from hierax.infer.result import Result


@dataclasses.dataclass(eq=False)
class AtParameters:
    """The objective at one value of the population parameters, and the modes of the random effects there.

    It is the base of :class:`~hierax.results.fit.Evaluation`, which describes the fields, and of :class:`Outcome`.
    """

    session: Session
    params: dict[str, Any]
    flat: np.ndarray
    eta: np.ndarray
    value: np.ndarray
    hessian: np.ndarray
    codes: np.ndarray
    n_observations: int
    n_gaussian: int

    @property
    def rows(self) -> np.ndarray:
        """Rows of the real subjects."""
        return np.flatnonzero(np.asarray(self.session.pop.subject_mask))

    @property
    def log_likelihood(self) -> float:
        """Log of the marginal likelihood by this approximation, with all constants."""
        return -float(self.value[self.rows].sum())

    @property
    def ofv(self) -> float:
        """−2 log L − N·log 2π, N the number of Gaussian observations: NONMEM's constant."""
        return -2 * self.log_likelihood - self.n_gaussian * float(np.log(2 * np.pi))


@dataclasses.dataclass(eq=False)
class Outcome(AtParameters):
    """What an estimator has found; ``Fit.from_outcome`` makes a :class:`~hierax.Fit` of it.

    Attributes
    ----------
    session : Session
        The objective from which EBEs and residuals are computed.
    params, flat, eta, value, hessian, codes, n_observations, n_gaussian
        As for :class:`~hierax.results.fit.Evaluation`.
    result, why
        How the search ended, as a code and in words.
    penalty : float
        −log density of the priors that count.
    free : array of bool, (parameter,), optional
        Which parameters were estimated, where these are fewer than the job had asked for.
    gradient : array, (parameter,), optional
        Gradient of the objective at the end, where the method has one.
    history, timing, held, solver_error, held_out
        As for :class:`~hierax.Fit`.
    extras : dict
        Fields that only some methods have: ``moments``, ``samples``, ``variational``.
    """

    result: Result
    why: str
    history: pd.DataFrame
    timing: dict[str, float]
    penalty: float = 0.0
    free: np.ndarray | None = None
    gradient: np.ndarray | None = None
    held: list[str] = dataclasses.field(default_factory=list)
    solver_error: dict[str, float] | None = None
    held_out: np.ndarray | None = None
    extras: dict[str, Any] = dataclasses.field(default_factory=dict)


def evaluated_fields(session: Session, flat: np.ndarray, out: Evaluated) -> dict[str, Any]:
    """Return the fields of an evaluation, with modes and likelihoods by the session's objective."""
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
    """Return the fields of an evaluation from each subject's conditional moments: means stand for modes.

    ``moments`` are the means and covariances of the random effects. ``value`` is −log of each subject's marginal
    likelihood, NaN where it is not known.
    """
    n = session.pop.n_subjects
    return {
        **_point(session, flat),
        "eta": moments[0],
        "value": np.broadcast_to(value, (n,)).copy(),
        "hessian": inverse_blocks(moments[1]),
        "codes": np.zeros(n, int),
    }


def solver_error(session: Session) -> dict[str, float] | None:
    """Return the error of each ODE's grid when it was last computed; None where there is no grid."""
    return None if session.grids is None else dict(session.grids.error)


def gaussian_constant(session: Session, flat: np.ndarray) -> float:
    """Return N·log 2π, N the number of Gaussian observations."""
    return _point(session, flat)["n_gaussian"] * float(np.log(2 * np.pi))


def with_modes(session: Session, flat: np.ndarray, out: Evaluated) -> Evaluated:
    """Add post-hoc modes of the joint density for an estimator that has none of its own but asks for them (FO)."""
    post_hoc = session.estimator.post_hoc()
    if post_hoc is None:
        return out
    value = compiled_value(session.program, post_hoc, session.layout.unravel)
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
