"""One point of a search: the objective there, its gradient in units of its own sampling error, and its scaling."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

# An entry whose scores are below this for every subject is not felt by the objective: a unit step of a logarithm
# changes no subject's log likelihood by as much. Entries of matrices count as ended earlier, see _OF_MATRICES.
_IDLE, _IDLE_OF_MATRICES = 1e-5, 1e-3
# What may be left to gain by moving such an entry to the end of its range, in units of log likelihood. Closer to a
# singular matrix, rounding of its factors is larger than what is left.
_NEGLIGIBLE, _OF_MATRICES = 1e-8, 1e-6


class Point(NamedTuple):
    """The objective at one point, as the optimiser sees it (-log likelihood scale, free parameters only)."""

    value: float
    gradient: np.ndarray
    scores: np.ndarray | None
    state: Any
    penalty: float = 0.0


class Ranges(NamedTuple):
    """Which entries have the ends of their range at infinity, (parameter,), and which of these belong to matrices.

    ``limits`` are the largest absolute values that the entries may take; the objective is infinite beyond them.
    ``joint`` marks entries that can only be interpreted together: network weights, entries of matrices and simplexes.
    """

    bounded: np.ndarray
    matrices: np.ndarray
    limits: np.ndarray | float = np.inf
    joint: np.ndarray | bool = False


def is_finite(point: Point) -> bool:
    """Return whether value, gradient and scores can be computed with."""
    # Scores whose squares overflow are of no use either: such a point is too far out.
    squares = point.gradient if point.scores is None else point.scores @ point.scores.T
    return bool(np.isfinite(point.value) and np.isfinite(point.gradient).all() and np.isfinite(squares).all())


def idle(point: Point, bounded: np.ndarray) -> np.ndarray:
    """Return which bounded entries the objective does not feel at this point, (parameter,).

    A variance that is all but 0 is such an entry, and so is an absorption rate so high that absorption takes no time.
    """
    if point.scores is None:
        return np.zeros(bounded.size, bool)
    return bounded & (np.abs(point.scores).max(-1, initial=0.0) < _IDLE)


def at_boundary(point: Point, ranges: Ranges, x: np.ndarray) -> np.ndarray:
    """Return which entries have reached the end of their range, (parameter,).

    The objective hardly feels them, and falls (or does not change) on the way further out: there is nothing left to
    gain. The ends of a logarithm or a logit lie at infinity, so that an entry never arrives.
    """
    outward = point.gradient * np.sign(x) <= 0
    small = np.abs(point.gradient) < np.where(ranges.matrices, _OF_MATRICES, _NEGLIGIBLE)
    return _quiet(point, ranges) & outward & small


def _quiet(point: Point, ranges: Ranges) -> np.ndarray:
    """Return which entries are idle, those of matrices by their own, larger threshold."""
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
