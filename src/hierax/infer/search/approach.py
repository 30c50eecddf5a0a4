"""From a start far from any optimum to where quasi-Newton steps make sense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from hierax.infer.search.scaling import Point, idle, standardised

# The standardised gradient of N subjects is at most √N, which it reaches where all scores point the same way: every
# subject then asks for the same thing, and the scores say nothing of curvature.
_SATURATED = 0.9
# First length of a step, in logarithms (or relative, where an entry has no bounds), and the shortest one.
_FIRST, _SHORTEST = 0.5, 1e-3
# Most steps on the way.
_STEPS = 60
# Levenberg's damping: entries that change the objective little, beside the others, stay where they are for now.
_DAMPING = 1e-4
# How far entries that the objective does not feel are moved to look for a place where it does, in decades.
_DECADES = np.array([1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0])
# A value has to differ by so much log likelihood for the objective to feel anything there.
FELT = 1e-3


class Seeker(Protocol):
    """A search that can look at points: it keeps the best one."""

    best: Point | None
    best_x: np.ndarray
    bounded: np.ndarray
    see: Callable[..., Point]
    look: Callable[..., Point]


def wake(search: Seeker, entries: np.ndarray, clearly: float) -> np.ndarray:
    """Look for lower values along ``entries`` that the objective does not feel, and go there.

    At a standard deviation of 1e-8 the objective is flat in its logarithm, and so it is where a rate constant is so
    high that a state empties at once. No gradient leads out of there: some points decades away are tried, all such
    entries together, and then one by one. ``clearly`` is by how much a value has to be lower to be gone to.

    Returns which entries the objective does not feel decades around either, (parameter,).
    """
    flat = np.zeros(entries.size, bool)
    if not entries.any():
        return flat
    _scan(search, _inwards(search, entries), clearly)
    assert search.best is not None
    for entry in np.flatnonzero(entries & idle(search.best, search.bounded)):
        alone, origin = np.eye(entries.size)[entry], search.best_x.copy()
        places = [origin + side * ten * alone for ten in _DECADES * np.log(10) for side in (-1.0, 1.0)]
        values = _scan(search, places, clearly)
        flat[entry] = bool(np.all(np.abs(values - search.best.value) < FELT))
    return flat


def look_back(search: Seeker, entries: np.ndarray, clearly: float) -> None:
    """Look for lower values inside the ranges of parameters that have come to the end of them, and go there.

    At the end of a range the slope is smaller than its rounding error, so that it cannot lead back. A random effect
    whose variance fell to 0 while other parameters were far off may be needed where these are now.
    """
    for entry in np.flatnonzero(entries):
        assert search.best is not None
        if idle(search.best, search.bounded)[entry]:
            _scan(search, _inwards(search, np.arange(entries.size) == entry), clearly)


def _inwards(search: Seeker, entries: np.ndarray) -> list[np.ndarray]:
    """Return places at which these entries are some decades further inside their ranges."""
    origin = search.best_x.copy()
    return [np.where(entries, origin - np.sign(origin) * ten, origin) for ten in _DECADES * np.log(10)]


def _scan(search: Seeker, places: list[np.ndarray], clearly: float) -> np.ndarray:
    """Go to the lowest of some places if it is clearly lower than where the search stands; return all values."""
    assert search.best is not None
    values = np.array([search.look(x, search.best.state).value for x in places])
    if np.nanmin(values) < search.best.value - clearly:
        search.see(places[int(np.nanargmin(values))], search.best.state, 0.0)
    return values


def come_nearer(search: Seeker, longest: float) -> None:
    """Descend by damped steps of bounded length until the subjects' scores no longer all point the same way.

    Where scores are collinear their outer product is no curvature, so that only its direction is used; the length is
    doubled after a success and quartered after a failure. No entry moves by more than ``longest`` in a step.
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
    # Of so few subjects' scores some combination is collinear anywhere: only a parameter by itself can tell.
    squares = (point.scores**2).sum(-1)
    share = np.divide(point.gradient**2, subjects * squares, out=np.zeros_like(squares), where=squares > 0)
    return bool(subjects > 2 and share.max() > _SATURATED)


def _step(point: Point, x: np.ndarray, bounded: np.ndarray, reach: float) -> np.ndarray:
    """Return −(S + λI)⁻¹g in relative units, its largest entry brought to ``reach``."""
    assert point.scores is not None
    unit = np.where(bounded, 1.0, np.maximum(np.abs(x), 0.1))
    scores = unit[:, None] * point.scores
    outer = scores @ scores.T
    top = float(np.diag(outer).max(initial=0.0))
    direction = -np.linalg.solve(outer / top + _DAMPING * np.eye(unit.size), unit * point.gradient / np.sqrt(top))
    return unit * direction * (reach / np.abs(direction).max())
