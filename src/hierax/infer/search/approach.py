"""Steps that lead from a start far from any optimum to where quasi-Newton steps make sense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from hierax.infer.search.scaling import Point, idle, relative_units, standardised

# The standardised gradient of N subjects is at most √N, and reaches it where all subjects' scores point the same way.
# There the scores say nothing about curvature. Beyond this share of √N a point counts as far from any optimum.
_SATURATED = 0.9
# The length of the first damped step, and the length below which no more steps are tried: in units of the logarithm or
# logit for a bounded parameter, relative to the parameter for one without bounds.
_FIRST, _SHORTEST = 0.5, 1e-3
# The largest number of damped steps.
_STEPS = 60
# Levenberg's damping, relative to the largest sum of squared scores: it leaves parameters that change the objective
# little, compared with the others, where they are for now.
_DAMPING = 1e-4
# How far, in decades, a parameter that does not change the objective is moved in search of a place where it does.
_DECADES = np.array([1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0])
# The objective counts as changed where its value differs by more than this, in units of log likelihood.
FELT = 1e-3


class Seeker(Protocol):
    """A search that evaluates points: ``see`` keeps the best one, ``look`` only evaluates."""

    best: Point | None
    best_x: np.ndarray
    bounded: np.ndarray
    see: Callable[..., Point]
    look: Callable[..., Point]


def wake(search: Seeker, entries: np.ndarray, clearly: float) -> np.ndarray:
    """Look for a lower objective along ``entries``, which do not change it at this point, and go there.

    Where a standard deviation is 1e-8, the objective is flat in its logarithm; the same holds for a rate constant so
    high that a compartment empties at once. No gradient leads out of such a place. Points some decades away are tried
    instead: first with all these parameters moved inwards together, then with one parameter moved at a time. The
    search goes to the lowest point if the objective is lower there by more than ``clearly``.

    Returns which of ``entries`` do not change the objective decades around either, (parameter,).
    """
    flat = np.zeros(entries.size, bool)
    if not entries.any():
        return flat
    scan(search, _inwards(search, entries), clearly)
    assert search.best is not None
    for entry in np.flatnonzero(entries & idle(search.best, search.bounded)):
        alone, origin = np.eye(entries.size)[entry], search.best_x.copy()
        places = [origin + side * ten * alone for ten in _DECADES * np.log(10) for side in (-1.0, 1.0)]
        values = scan(search, places, clearly)
        flat[entry] = bool(np.all(np.abs(values - search.best.value) < FELT))
    return flat


def look_back(search: Seeker, entries: np.ndarray, clearly: float) -> None:
    """Look for a lower objective inside the range of each parameter that has come to the end of it, and go there.

    At the end of a range the slope is smaller than its rounding error, so that it cannot lead back. But a random effect
    whose variance fell to 0 while other parameters were far off may be needed now that these have moved.
    """
    for entry in np.flatnonzero(entries):
        assert search.best is not None
        if idle(search.best, search.bounded)[entry]:
            scan(search, _inwards(search, np.arange(entries.size) == entry), clearly)


def _inwards(search: Seeker, entries: np.ndarray) -> list[np.ndarray]:
    """Return places at which these entries are some decades further inside their ranges."""
    origin = search.best_x.copy()
    return [np.where(entries, origin - np.sign(origin) * ten, origin) for ten in _DECADES * np.log(10)]


def scan(search: Seeker, places: list[np.ndarray], clearly: float) -> np.ndarray:
    """Go to the lowest of some places if it is clearly lower than where the search stands; return all values."""
    assert search.best is not None
    values = np.array([search.look(x, search.best.state).value for x in places])
    if places and np.nanmin(values) < search.best.value - clearly:
        search.see(places[int(np.nanargmin(values))], search.best.state, 0.0)
    return values


def come_nearer(search: Seeker, longest: float) -> None:
    """Descend by damped steps of bounded length until the subjects' scores no longer all point the same way.

    Where the scores are collinear, their outer product does not approximate the curvature. A step therefore takes only
    its direction from them; its length is doubled after a success and quartered after a failure. No parameter moves by
    more than ``longest`` in a step.
    """
    reach = _FIRST
    for _ in range(_STEPS):
        point, x = search.best, search.best_x
        assert point is not None
        if not is_far(point):
            return
        step = _step(point, x, search.bounded, reach)
        before = point.value
        found = search.see(x + step, point.state, float(np.linalg.norm(step)))
        reach = min(2 * reach, longest) if found.value < before else reach / 4
        if reach < _SHORTEST:
            return


def is_far(point: Point) -> bool:
    """Return whether nearly all subjects' scores point the same way."""
    if point.scores is None or not point.gradient.size:
        return False
    subjects = np.count_nonzero(np.abs(point.scores).max(0, initial=0.0))
    if subjects > point.gradient.size:
        return bool(standardised(point) > _SATURATED * np.sqrt(subjects))
    # With no more subjects than parameters, some combination of the scores is collinear everywhere. Each parameter is
    # therefore judged by itself.
    squares = (point.scores**2).sum(-1)
    share = np.divide(point.gradient**2, subjects * squares, out=np.zeros_like(squares), where=squares > 0)
    return bool(subjects > 2 and share.max() > _SATURATED)


def _step(point: Point, x: np.ndarray, bounded: np.ndarray, reach: float) -> np.ndarray:
    """Return the damped step −(S + λI)⁻¹g, scaled so that its largest entry in relative units is ``reach``."""
    assert point.scores is not None
    unit = relative_units(x, bounded)
    scores = unit[:, None] * point.scores
    outer = scores @ scores.T
    top = float(np.diag(outer).max(initial=0.0))
    direction = -np.linalg.solve(outer / top + _DAMPING * np.eye(unit.size), unit * point.gradient / np.sqrt(top))
    return unit * direction * (reach / np.abs(direction).max())
