"""Check whether a search has missed a lower optimum: inside ranges, nearby, or reached from a better start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int

from hierax.errors import tell
from hierax.infer.result import Result
from hierax.infer.search.approach import FELT, Seeker, scan
from hierax.infer.search.options import QuasiNewton, Starting
from hierax.infer.search.scaling import Point, Ranges, is_finite, relative_units
from hierax.infer.search.words import started_elsewhere

# How far inside its range a parameter that has come to the end of it is tried, in decades.
_INWARD = np.arange(0.5, 12.5, 0.5)
# From how many of the places at which the objective changes a search is begun, and how many evaluations each search
# may take, at most.
_PLACES, _EVALUATIONS = 3, 60
# A search that has gained more log likelihood than this for each subject began far from any optimum.
_FAR_OFF = 10.0
# A bounded parameter is far out where it differs from 1 by more than a factor of 1e4; one without bounds where it is
# more than 1e5 times its start value (or 1e5, if the start is below 1).
_FAR_OUT, _FAR_OUT_WITHOUT_ENDS = np.log(1e4), 1e5
# How far, in decades, one parameter at a time is moved up and down in search of a better start.
_DISTANCES = np.array([0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0])
# The largest number of such moves, and how far from the start a parameter may get in all, in decades. One without
# bounds may get less far, because rounding errors of the objective grow with it.
_MOVES, _FURTHEST, _FURTHEST_WITHOUT_ENDS = 12, 12.0, 2.0
# A move is made if it lowers −log likelihood by more than this.
_WORTH = 0.5
# The relative distance at which each parameter is tried, on both sides of its value, around the end of a search.
_NEARBY = 0.05
# How often, at most, a search looks around its end in this way.
_LOOKS_AROUND = 10


class Profiler(Seeker, Protocol):
    """A search that can hold one parameter and estimate all others."""

    ranges: Ranges
    options: QuasiNewton
    far_off: bool
    looks: int
    first: Point | None
    starting: Starting
    names: Sequence[str]
    single: Callable[[], np.ndarray]
    profile: Callable[..., Any]


def lower_inside(search: Profiler, entries: Int[np.ndarray, " entry"], clearly: float) -> bool:
    """Return whether the objective is lower inside the range of a parameter at its end, and go there.

    Each parameter is held at some places where the objective depends on it, and all others are estimated anew. A place
    counts as lower where −log likelihood is lower by more than ``clearly``.
    """
    assert search.best is not None
    for entry in map(int, entries):
        for place in _sensitive_places(search, entry):
            found = search.profile(place, entry, _EVALUATIONS)
            if found.point.value < search.best.value - clearly:
                search.see(np.insert(found.x, entry, place[entry]), found.point.state, 0.0)
                return True
    return False


def lower_nearby(search: Profiler, result: Result, clearly: float) -> bool:
    """Return whether the objective is lower some per cent away from the end of a search, and go to the lowest place.

    One parameter is moved at a time. Near a smooth optimum there is no such place. But quadrature with few nodes has
    jumps where random effects have large variances, and a search may come to rest between two of them.

    This is done only where there is reason to doubt the end: the start was absurd, or no step helped any more.
    """
    assert search.best is not None
    assert search.first is not None
    absurd = search.first.value - search.best.value > search.starting.far
    doubtful = result is Result.no_progress or (absurd and result is Result.converged)
    if not doubtful or search.starting.stay or search.looks >= _LOOKS_AROUND:
        return False
    search.looks += 1
    steps = np.diag(_NEARBY * relative_units(search.best_x, search.bounded))[search.single()]
    before = search.best.value
    scan(search, [search.best_x + side * step for step in steps for side in (-1.0, 1.0)], clearly)
    return search.best.value < before


def lost(search: Profiler, first: Point, start: np.ndarray, settled: np.ndarray, stuck: bool) -> bool:
    """Return whether a search has ended where another one, from a better start, may end lower.

    That is so where a parameter has run far out, where one has not moved because the objective does not depend on it,
    where the search got stuck after a start far from any optimum, or where the start was absurd, so that another
    optimum may have been met on the long way.

    Parameters
    ----------
    first : Point
        The point at ``start``.
    settled : array of bool, (parameter,)
        Which parameters have come to the end of their range, and may stay there.
    stuck : bool
        Whether the search ended because no step decreased the objective.
    """
    assert search.best is not None
    x, bounded = search.best_x, search.bounded
    outward = (x - start) * np.sign(x)
    out = bounded & (np.abs(x) > _FAR_OUT) & (search.far_off | ((outward > 0.75 * _FAR_OUT) & ~settled))
    out |= ~bounded & (np.abs(x) > _FAR_OUT_WITHOUT_ENDS * np.maximum(np.abs(start), 1.0))
    late = first.value - search.best.value > (_far_off(first) if stuck else search.starting.far)
    return bool(out.any() or late or still(search, start).any())


def worth_leaving(first: Point, found: Result, before: Result, clearly: float) -> float:
    """Return by how much lower −log likelihood must be at the end of a second search for that end to be taken.

    If the second search has converged, ``clearly`` is enough; if the first one has not, it may even be as much higher.
    If the second search has not converged, far more is asked for, because where a likelihood has no maximum one place
    may be lower than another by rounding errors alone.

    Parameters
    ----------
    first : Point
        The point at the start of the first search.
    found, before : Result
        How the second and the first search ended.
    clearly : float
        The smallest difference of −log likelihood that counts.
    """
    if found is not Result.converged:
        return _far_off(first)
    return clearly if before is Result.converged else -clearly


def _far_off(first: Point) -> float:
    """Return the gain of log likelihood by which a search is known to have begun far from any optimum."""
    subjects = 1 if first.scores is None else np.count_nonzero(np.abs(first.scores).max(0, initial=0.0))
    return _FAR_OFF * subjects


def still(search: Profiler, start: Float[np.ndarray, " parameter"]) -> Bool[np.ndarray, " parameter"]:
    """Return which parameters still have their start value because the objective does not depend on them there."""
    assert search.best is not None
    if search.best.scores is None:
        return np.zeros(start.size, bool)
    return (search.best_x == start) & (search.best.scores == 0).all(-1) & ~np.asarray(search.ranges.joint)


def leave_start(search: Profiler, point: Point, why: str) -> bool:
    """Move to a start at which objective and gradient are finite, if moves of single parameters lead to one.

    Each parameter is moved by up to 12 decades (one without bounds by up to 2). No other start is looked for where only
    the gradient is not finite, and the program's own start values are no better, or not known. The fault then lies in
    the model and not in the start, and the caller reports it; a start far away where the gradient happens to be finite
    would only hide it.

    Parameters
    ----------
    point : Point
        The point at the given start.
    why : str
        What is wrong with it, for the message.

    Returns
    -------
    bool
        Whether the search now stands at another start. If not, it has kept the given one.
    """
    own = search.starting.own
    if np.isfinite(point.value) and (own is None or not is_finite(search.look(own(), None))):
        return False
    x, found = better_start(search, search.best_x, point, search.single())
    if not is_finite(found):
        return False
    tell(started_elsewhere(why, search.names, x != search.best_x))
    search.see(x, found.state, 0.0, replace=True)
    return True


def better_start(
    search: Profiler, start: Float[np.ndarray, " parameter"], first: Point, entries: Int[np.ndarray, " entry"]
) -> tuple[Float[np.ndarray, " parameter"], Point]:
    """Return a place with a lower objective than ``start``, and the point there.

    One parameter is moved at a time. Each move takes the parameter and the distance that lower the objective most.
    Values are compared and not gradients, because far from any optimum gradients do not say how far to go.
    """
    x, here, looks = start, first._replace(value=first.value if is_finite(first) else np.inf), 0
    for _ in range(_MOVES):
        places = [place for entry in map(int, entries) for place in _around(search, x, start, entry)]
        looks += len(places)
        # The comparison may take no more evaluations than a search.
        if not places or looks > search.options.max_iter:
            break
        looked = [search.look(place, first.state) for place in places]
        values = [point.value if np.isfinite(point.value) else np.inf for point in looked]
        lowest = int(np.argmin(values))
        if not values[lowest] < here.value - _WORTH:
            break
        x, here = places[lowest], looked[lowest]
    return x, here


def _around(search: Profiler, x: np.ndarray, start: np.ndarray, entry: int) -> list[Float[np.ndarray, " parameter"]]:
    """Return places at which one parameter is some decades away; one without bounds also with the other sign."""
    ten, alone = np.log(10), np.arange(x.size) == entry
    away = np.concatenate([-_DISTANCES, _DISTANCES])
    if search.bounded[entry]:
        moved = x[entry] + away * ten
        moved = moved[np.abs(moved - start[entry]) <= (_FURTHEST + 0.1) * ten]
    else:
        factors = 10.0**away
        unit = x[entry] or 1.0
        moved = unit * np.concatenate([factors, -factors, [] if x[entry] == unit else [0.0]])
        moved = moved[np.abs(moved) <= 10.0**_FURTHEST_WITHOUT_ENDS * max(abs(start[entry]), 1.0)]
    return [np.where(alone, value, x) for value in moved]


def _sensitive_places(search: Profiler, entry: int) -> list[Float[np.ndarray, " parameter"]]:
    """Return places further inside a parameter's range that change the objective: the first one, and the lowest."""
    assert search.best is not None
    inward = -np.sign(search.best_x[entry]) * np.log(10) * np.eye(search.best_x.size)[entry]
    places = [search.best_x + inward * decades for decades in _INWARD]
    values = np.array([search.look(x, search.best.state).value for x in places])
    felt = np.flatnonzero(np.abs(values - search.best.value) > FELT)
    lowest = felt[np.argsort(values[felt])][: _PLACES - 1]
    return [places[index] for index in dict.fromkeys([*felt[:1], *lowest])]
