"""Uncertainty of the estimates: Hessian, score and sandwich covariance, and what the data do not identify."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from hierax.infer.marginal.objective import compiled_scores
from hierax.infer.result import Result
from hierax.infer.search.scaling import Point, idle
from hierax.program.parameters import element_names, elementwise
from hierax.results.tables.matrices import shown, shown_places
from hierax.results.uncertainty.conditional import louis

if TYPE_CHECKING:
    from hierax.results.fit import Fit, Kind

# Step of the fourth-order differences of the exact gradient, in standard errors. Their truncation error is proportional
# to step⁴, far below the precision to which an SE is read, and the gradient's roundoff divided by the step is smaller
# still.
_STEP = 1e-2
# Eigenvalues of the correlation-scaled Hessian below this mark a direction that the data do not identify.
_FLAT = 1e-6


@dataclasses.dataclass(frozen=True)
class Covariance:
    """Covariance of the free population parameters except network weights, on which it is conditional.

    Attributes
    ----------
    kind : str
        ``hessian``, ``sandwich``, ``score`` or ``louis``.
    unconstrained : pandas.DataFrame
        Covariance in unconstrained space, (parameter, parameter).
    natural : pandas.DataFrame
        Covariance of the constrained elements, by the delta method.
    condition_number : float
        Largest over smallest eigenvalue of the correlation matrix of the estimates; infinite where not defined.
    unidentified : list of str
        Parameters with a large part in a direction that the data do not identify.
    ok : bool
        Whether the Hessian (or score matrix) is positive definite, so that the numbers mean anything.
    boundary : list of str
        Parameters that have reached the end of their range, such as a variance of 0, where the likelihood is not
        quadratic. They are left out, and the covariance of the others is conditional on them. :func:`hierax.profile`
        gives their intervals.
    stationary : bool
        Whether the fit has ended at an optimum; elsewhere a flat direction does not show what the data identify.
    monte_carlo : pandas.Series or None
        Relative Monte-Carlo error of the standard errors in unconstrained space, for a matrix computed from draws.
    """

    kind: str
    unconstrained: pd.DataFrame
    natural: pd.DataFrame
    condition_number: float
    unidentified: list[str]
    ok: bool
    boundary: list[str] = dataclasses.field(default_factory=list)
    stationary: bool = True
    monte_carlo: pd.Series | None = None

    @property
    def correlation(self) -> pd.DataFrame:
        """Correlation matrix of the estimates, unconstrained."""
        spread = np.sqrt(np.diag(self.unconstrained))
        return self.unconstrained.div(spread, axis=0).div(spread, axis=1)

    @property
    def se(self) -> pd.Series:
        """Standard errors on the natural scale."""
        return pd.Series(np.sqrt(np.diag(self.natural)), index=self.natural.index, name="SE")


def compute_covariance(fit: Fit, kind: Kind) -> Covariance:
    """Return the covariance of a fit's estimates; see :meth:`hierax.Fit.covariance`."""
    if kind not in ("hessian", "sandwich", "score", "louis"):
        raise ValueError(f"covariance(kind={kind!r}) is not known. Use 'hessian', 'sandwich', 'score' or 'louis'.")
    active, ended, information, scores, error = _derivatives(fit, kind)
    names = [fit.layout.names()[index] for index in active]
    noise = None if error is None else pd.Series(error, index=names, name="Monte-Carlo error")
    meat = scores @ scores.T
    if kind == "score":
        information = meat
    elif information is None:
        information = hessian(lambda flat, eta: gradient(fit, flat, eta, active), fit, active, meat)
    # In a fit one of whose parameters did not move from its start, all the others are at an optimum.
    stationary = fit.result in (Result.converged, Result.did_not_move)
    inverse, flat_ones, ok = _invert(information, names)
    covariance = inverse @ meat @ inverse if kind == "sandwich" else inverse
    table = pd.DataFrame(covariance, index=names, columns=names)
    spread = np.sqrt(np.abs(np.diag(covariance)))
    values = np.linalg.eigvalsh(covariance / np.outer(spread, spread)) if ok and len(names) else np.ones(1)
    condition = float(values.max() / values.min()) if values.min() > 0 else np.inf
    return Covariance(
        kind=kind,
        unconstrained=table,
        natural=_natural(fit, covariance, active),
        condition_number=condition if ok else np.inf,
        unidentified=flat_ones if stationary else [],
        ok=ok,
        boundary=[fit.layout.names()[index] for index in ended],
        stationary=stationary,
        monte_carlo=noise,
    )


def _derivatives(fit: Fit, kind: Kind) -> tuple[np.ndarray, np.ndarray, Any, np.ndarray, Any]:
    """Return the entries that have a covariance, the entries at the end of their range, and three derivatives.

    The derivatives are taken with respect to the entries that have a covariance: the observed information by Louis'
    method, the subjects' scores (parameter, subject), and the relative Monte-Carlo error of the SEs that this
    information gives. Information and error are None unless ``kind`` is "louis".
    """
    every = np.flatnonzero(fit.free & ~fit.layout.weights())
    if kind != "louis":
        scores = subject_scores(fit, every)
        ended = _at_boundary(fit, every, scores)
        return every[~ended], every[ended], None, scores[~ended], None
    found = louis(fit, every)
    ended = _at_boundary(fit, every, found.scores)
    active = every[~ended]
    # Computed once more without the entries at the end of their range, which make the matrix nearly singular and so
    # spoil the estimate of its Monte-Carlo error.
    found = louis(fit, active) if ended.any() else found
    return active, every[ended], found.information, found.scores, found.error


def _at_boundary(fit: Fit, active: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return which active entries no longer change the objective, because they have reached the end of their range."""
    point = Point(0.0, scores.sum(-1), scores, None)
    return idle(point, fit.layout.bounded()[active])


def active_entries(fit: Fit, covariance: Covariance) -> np.ndarray:
    """Return the indices, in the flat vector, of the parameters in a covariance."""
    names = fit.layout.names()
    return np.array([names.index(name) for name in covariance.unconstrained.index], int)


def usable_covariance(fit: Fit, purpose: str) -> Covariance:
    """Return the fit's usual covariance, or raise an error where it is not positive definite.

    Raises
    ------
    ValueError
        There is no covariance; the message names the parameters that are not identified.
    """
    covariance = fit.covariance()
    if not covariance.ok and not covariance.stationary:
        raise ValueError(
            f"The estimates cannot be {purpose}, because the fit has not converged ({fit.result.name}) and its Hessian "
            f"is not positive definite where it ended. Fit on from there (init=fit), or start elsewhere."
        )
    if not covariance.ok:
        raise ValueError(
            f"The estimates cannot be {purpose}, because their Hessian is not positive definite "
            f"(not identified: {covariance.unidentified or 'a combination of parameters'}). Fix a parameter and refit."
        )
    return covariance


def subject_scores(fit: Fit, active: np.ndarray) -> np.ndarray:
    """Return the gradients of −log L_i, (parameter, subject), real subjects only."""
    if not len(active):
        # Only network weights were estimated.
        return np.zeros((0, len(fit.rows)))
    out = fit.session.evaluate(fit.flat, fit.eta)
    if out.scores is not None:
        return np.asarray(out.scores)[active][:, fit.rows]
    # Reverse-mode differentiation, which is used for many parameters, gives only the sum over subjects. The scores then
    # take one forward pass for each active entry.
    wanted = tuple(int(index) for index in active)
    function = compiled_scores(fit.program, fit.approximation, fit.layout.unravel, wanted)
    return np.asarray(function(jnp.asarray(fit.flat), jnp.asarray(fit.eta), fit.pop))[:, fit.rows]


def gradient(fit: Fit, flat: np.ndarray, eta: Any, active: np.ndarray) -> np.ndarray:
    """Return the active entries of the gradient of the objective plus penalty."""
    slope = fit.session.penalty(flat)[1]
    return (np.asarray(fit.session.evaluate(flat, eta).gradient) + slope)[active]


def hessian(
    gradient: Callable[[np.ndarray, Any], np.ndarray], fit: Fit, active: np.ndarray, meat: np.ndarray
) -> np.ndarray:
    """Return the Hessian of −log L by fourth-order differences of its gradient, with modes found anew at each point.

    ``meat``, the sum of the outer products of the subjects' scores, gives the scale of the steps.
    """
    scale = np.sqrt(np.diag(meat))
    scale = np.where(scale > 1e-8, scale, 1.0)
    out = np.zeros((len(active), len(active)))
    for column, index in enumerate(active):
        step = min(_STEP / scale[column], 0.05)

        def at(shift: float, index: int = int(index)) -> np.ndarray:
            moved = fit.flat.copy()
            moved[index] += shift
            return gradient(moved, fit.eta)

        out[:, column] = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)
    return 0.5 * (out + out.T)


def _invert(information: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str], bool]:
    """Return the inverse, the parameters in flat directions, and whether the matrix is positive definite."""
    if not len(information):
        return information, [], True
    if not np.isfinite(information).all():
        return np.full_like(information, np.nan), [], False
    spread = np.sqrt(np.abs(np.diag(information)))
    dead = spread == 0
    spread = np.where(dead, 1.0, spread)
    values, vectors = np.linalg.eigh(information / np.outer(spread, spread))
    flat = values < _FLAT
    share = np.abs(vectors[:, flat])
    # Parameters with a large part in a flat direction, or the one with the largest where the direction is spread out.
    large = share >= np.minimum(0.3, share.max(0, initial=0.0)) if flat.any() else share > 1
    parts = large.any(-1) | dead
    unidentified = [name for name, part in zip(names, parts, strict=True) if part]
    if flat.any():
        return np.full_like(information, np.nan), unidentified, False
    inverse = (vectors / values) @ vectors.T / np.outer(spread, spread)
    return inverse, unidentified, True


def _natural(fit: Fit, covariance: np.ndarray, active: np.ndarray) -> pd.DataFrame:
    """Return the covariance of the constrained elements that are not constant, by the delta method."""
    names, pick = natural_elements(fit)

    def elements(part: jnp.ndarray) -> jnp.ndarray:
        params = fit.program.constrain(fit.layout.unravel(jnp.asarray(fit.flat).at[active].set(part)))
        sites = fit.program.sites.population
        return jnp.concatenate([jnp.ravel(shown(sites[name], params[name]))[index] for name, index in pick])

    if not names:
        return pd.DataFrame()
    slope = np.asarray(jax.jit(jax.jacfwd(elements))(jnp.asarray(fit.flat[active])))
    moves = np.abs(slope).max(-1, initial=0.0) > 0
    names, slope = [name for name, one in zip(names, moves, strict=True) if one], slope[moves]
    return pd.DataFrame(slope @ covariance @ slope.T, index=names, columns=names)


def natural_elements(fit: Fit) -> tuple[list[str], list[tuple[str, np.ndarray]]]:
    """Return names and indices, by site, of the constrained elements that are shown and estimated."""
    names, pick = [], []
    weights = fit.layout.weights()
    for name, place in fit.layout.slices.items():
        site = fit.program.sites.population[name]
        if weights[place].any() or not fit.free[place].any():
            continue
        keep = fit.free[place] if elementwise(site) else shown_places(site)
        index = np.flatnonzero(keep)
        names += [element_names(name, site.shape)[i] for i in index]
        pick.append((name, index))
    return names, pick
