"""Newton steps at the end of a search: they tell an optimum from a place where quasi-Newton steps got stuck."""

from __future__ import annotations

import numpy as np

from hierax.infer.search.approach import Seeker
from hierax.infer.search.scaling import Point

# The Hessian is computed by differences of the gradient. A parameter is moved by about this many standard errors: the
# root of its summed squared scores is the inverse of one.
_STEP = 1e-3
# The shortest and the longest of these moves in unconstrained space, whatever the scores are.
_SHORTEST_STEP, _LONGEST_STEP = 1e-6, 1e-2
# The largest number of Newton steps, and of lengths at which each is tried, every one half the one before.
_ROUNDS, _HALVINGS = 6, 8
# With more parameters than this no Hessian is computed, because it takes an evaluation for each parameter.
_PARAMETERS = 60


def polish(search: Seeker, tolerance: float, without: np.ndarray, longest: float) -> tuple[bool, float]:
    """Take Newton steps from the best point; return whether it is an optimum, and the decrement there.

    The decrement √(gᵀH⁻¹g), with the gradient g and the Hessian H, is the distance to the optimum in standard errors.
    The point is an optimum where the decrement is below ``tolerance`` and no curvature is negative. Negative curvatures
    are replaced by their absolute values, so that a step leads away from a saddle. ``without`` marks parameters at the
    end of their range, which stay there. No bounded parameter moves by more than ``longest`` in a step.
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
    """Return the Hessian by forward differences of the exact gradient; modes are found anew at each point."""
    scale = np.ones(inner.size) if point.scores is None else np.sqrt((point.scores[inner] ** 2).sum(-1))
    origin, columns = search.best_x.copy(), []
    for entry, size in zip(inner, scale, strict=True):
        step = float(np.clip(_STEP / max(size, 1e-12), _SHORTEST_STEP, _LONGEST_STEP))
        moved = origin.copy()
        moved[entry] += step
        columns.append((search.look(moved, point.state).gradient[inner] - point.gradient[inner]) / step)
    matrix = np.array(columns)
    return 0.5 * (matrix + matrix.T)


def _newton(gradient: np.ndarray, hessian: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """Return −|H|⁻¹g, the decrement, and whether no curvature is negative (a flat direction is allowed)."""
    spread = np.sqrt(np.abs(np.diag(hessian)))
    spread = np.where(spread > 0, spread, 1.0)
    values, vectors = np.linalg.eigh(hessian / np.outer(spread, spread))
    sizes = np.maximum(np.abs(values), 1e-6)
    along = vectors.T @ (gradient / spread)
    step = -(vectors @ (along / sizes)) / spread
    return step, float(np.sqrt((along**2 / sizes).sum())), bool(values.min() > -1e-6)


def _descended(search: Seeker, point: Point, inner: np.ndarray, step: np.ndarray, longest: float) -> bool:
    """Try the step, halved until it lowers the objective; return whether it did so at any length."""
    bounded = search.bounded[inner]
    step = np.where(bounded, np.clip(step, -longest, longest), step)
    origin = search.best_x.copy()
    for halving in range(_HALVINGS):
        moved = origin.copy()
        moved[inner] += step * 0.5**halving
        if search.see(moved, point.state, float(np.linalg.norm(step) * 0.5**halving)).value < point.value:
            return True
    return False
