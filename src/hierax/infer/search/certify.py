"""Newton steps at the end of a search: they tell an optimum from a place where quasi-Newton steps got stuck."""

from __future__ import annotations

import numpy as np

from hierax.infer.search.approach import Seeker
from hierax.infer.search.scaling import Point

# Steps of the differences of the exact gradient, in the units of the subjects' scores, and their bounds.
_STEP, _LEAST, _MOST = 1e-3, 1e-6, 1e-2
_ROUNDS, _HALVINGS = 6, 8
# More parameters than this are not differentiated one by one.
_PARAMETERS = 60


def polish(search: Seeker, tolerance: float, without: np.ndarray, longest: float) -> tuple[bool, float]:
    """Take Newton steps from the best point; return whether it is an optimum, and the decrement there.

    The Hessian is by differences of the gradient. The decrement √(gᵀH⁻¹g) is the distance to the optimum in standard
    errors; the point is an optimum where it is below ``tolerance`` and no curvature is negative. Along negative
    curvatures their moduli are taken, so that a saddle is left. ``without`` marks entries at the end of their range.
    """
    inner = np.flatnonzero(~without)
    decrement = np.inf
    if not inner.size or inner.size > _PARAMETERS:
        return not inner.size, decrement
    for _ in range(_ROUNDS):
        point = search.best
        assert point is not None
        hessian = _hessian(search, point, inner)
        if not np.isfinite(hessian).all():
            return False, np.inf
        step, decrement, definite = _newton(point.gradient[inner], hessian)
        if definite and decrement < tolerance:
            return True, decrement
        if not _descended(search, point, inner, step, longest):
            return False, decrement
    return False, decrement


def _hessian(search: Seeker, point: Point, inner: np.ndarray) -> np.ndarray:
    """Return the Hessian by forward differences of the exact gradient, modes found anew at each point."""
    scale = np.ones(inner.size) if point.scores is None else np.sqrt((point.scores[inner] ** 2).sum(-1))
    origin, columns = search.best_x.copy(), []
    for entry, size in zip(inner, scale, strict=True):
        step = float(np.clip(_STEP / max(size, 1e-12), _LEAST, _MOST))
        moved = origin.copy()
        moved[entry] += step
        columns.append((search.look(moved, point.state).gradient[inner] - point.gradient[inner]) / step)
    matrix = np.array(columns)
    return 0.5 * (matrix + matrix.T)


def _newton(gradient: np.ndarray, hessian: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """Return −|H|⁻¹g, the decrement, and whether H is positive definite (flat directions count as not)."""
    spread = np.sqrt(np.abs(np.diag(hessian)))
    spread = np.where(spread > 0, spread, 1.0)
    values, vectors = np.linalg.eigh(hessian / np.outer(spread, spread))
    sizes = np.maximum(np.abs(values), 1e-6)
    along = vectors.T @ (gradient / spread)
    step = -(vectors @ (along / sizes)) / spread
    return step, float(np.sqrt((along**2 / sizes).sum())), bool(values.min() > -1e-6)


def _descended(search: Seeker, point: Point, inner: np.ndarray, step: np.ndarray, longest: float) -> bool:
    """Try the step, shortened until it descends; return whether one did."""
    bounded = search.bounded[inner]
    step = np.where(bounded, np.clip(step, -longest, longest), step)
    origin = search.best_x.copy()
    for halving in range(_HALVINGS):
        moved = origin.copy()
        moved[inner] += step * 0.5**halving
        if search.see(moved, point.state, float(np.linalg.norm(step) * 0.5**halving)).value < point.value:
            return True
    return False
