"""One point of a search: the objective there, its gradient in units of its own sampling error, and its scaling."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

# A bounded parameter does not change the objective where its score is below this for every subject: a unit step of its
# logarithm changes no subject's log likelihood by as much. Entries of matrices have a larger threshold, because they
# come to the end of their range earlier (see below).
_IDLE, _IDLE_OF_MATRICES = 1e-5, 1e-3
# Such a parameter has come to the end of its range if its gradient is below this, in units of log likelihood per unit
# step. For entries of matrices the bound is larger, because close to a singular matrix the rounding errors of its
# factors exceed what is left to gain.
_NEGLIGIBLE, _NEGLIGIBLE_OF_MATRICES = 1e-8, 1e-6


class Point(NamedTuple):
    """The objective at one point, as the optimiser sees it (-log likelihood scale, free parameters only).

    ``state`` is what the next evaluation starts from (the modes), and ``penalty`` the part of ``value`` due to priors.
    """

    value: float
    gradient: np.ndarray
    scores: np.ndarray | None
    state: Any
    penalty: float = 0.0


class Ranges(NamedTuple):
    """The ranges of the parameters in unconstrained space, (parameter,) each.

    ``bounded`` marks entries whose range has its ends at infinity (logarithms, logits), and ``matrices`` those of them
    that belong to matrices. ``limits`` are the largest absolute values that the entries may take; the objective is
    infinite beyond them. ``joint`` marks entries that can only be interpreted together: network weights, entries of
    matrices and simplexes.
    """

    bounded: np.ndarray
    matrices: np.ndarray
    limits: np.ndarray | float = np.inf
    joint: np.ndarray | bool = False


def relative_units(x: np.ndarray, bounded: np.ndarray) -> np.ndarray:
    """Return the unit of a relative step for every parameter: that of a logarithm, or of the parameter's own size."""
    return np.where(bounded, 1.0, np.maximum(np.abs(x), 0.1))


def is_finite(point: Point) -> bool:
    """Return whether value, gradient and squared scores are finite."""
    # A point at which the squares of the scores overflow is too far out to be of use.
    squares = point.gradient if point.scores is None else point.scores @ point.scores.T
    return bool(np.isfinite(point.value) and np.isfinite(point.gradient).all() and np.isfinite(squares).all())


def idle(point: Point, bounded: np.ndarray) -> np.ndarray:
    """Return which bounded parameters do not change the objective at this point, (parameter,).

    A variance that is all but 0 is such a parameter, and so is an absorption rate constant so high that absorption
    takes no time.
    """
    if point.scores is None:
        return np.zeros(bounded.size, bool)
    return bounded & (np.abs(point.scores).max(-1, initial=0.0) < _IDLE)


def at_boundary(point: Point, ranges: Ranges, x: np.ndarray) -> np.ndarray:
    """Return which parameters have reached the end of their range, (parameter,).

    These parameters hardly change the objective, which falls (or stays the same) further out, so that there is nothing
    left to gain. The ends of a logarithm or a logit lie at infinity, so that a parameter never arrives exactly.
    """
    outward = point.gradient * np.sign(x) <= 0
    small = np.abs(point.gradient) < np.where(ranges.matrices, _NEGLIGIBLE_OF_MATRICES, _NEGLIGIBLE)
    return _quiet(point, ranges) & outward & small


def _quiet(point: Point, ranges: Ranges) -> np.ndarray:
    """Return which parameters do not change the objective; entries of matrices have a larger threshold."""
    if point.scores is None:
        return np.zeros(ranges.bounded.size, bool)
    return idle(point, ranges.bounded) | (
        ranges.matrices & (np.abs(point.scores).max(-1, initial=0.0) < _IDLE_OF_MATRICES)
    )


def standardised(point: Point, without: np.ndarray | None = None) -> float:
    """Return sqrt(gᵀS⁻¹g): the length of the gradient in units of its own sampling SD.

    Where there are no scores by subject, the largest entry of the gradient is returned instead. ``without`` marks
    entries to leave out: those at the end of their range.
    """
    keep = np.ones(point.gradient.size, bool) if without is None else ~without
    gradient = point.gradient[keep]
    if point.scores is None:
        return float(np.abs(gradient).max(initial=0.0))
    return float(np.linalg.norm(scaling(point._replace(gradient=gradient, scores=point.scores[keep])).T @ gradient))


def scaling(point: Point) -> np.ndarray:
    """Return C with C Cᵀ ≈ S⁻¹ from the subjects' scores: in x = C⁻¹u, steps and curvatures are of order one."""
    size = point.gradient.size
    if point.scores is None:
        return np.eye(size) / max(1.0, float(np.abs(point.gradient).max(initial=0.0)))
    outer = point.scores @ point.scores.T
    spread = np.sqrt(np.diag(outer))
    spread = np.where(spread > 0, spread, 1.0)
    correlation = outer / spread[:, None] / spread[None, :]
    values, vectors = np.linalg.eigh(0.95 * correlation + 0.05 * np.eye(size))
    return (vectors / np.sqrt(np.maximum(values, 1e-3)) @ vectors.T) / spread[:, None]


def scaling_within(point: Point, free: np.ndarray) -> np.ndarray:
    """Return the scaling of the free entries alone: zeros hold the others where they are."""
    out = np.zeros((free.size, free.size))
    scores = None if point.scores is None else point.scores[free]
    out[np.ix_(free, free)] = scaling(point._replace(gradient=point.gradient[free], scores=scores))
    return out
