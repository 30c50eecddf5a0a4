"""Whether a search from far off has followed an entry to the end of its range past a lower valley inside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from hierax.infer.approach import FELT
from hierax.infer.scaling import Point

# How far inside its range an entry at the end of it is looked at, in decades.
_INWARD = np.arange(0.5, 12.5, 0.5)
# How many of the places that the objective feels are looked at, and by how many evaluations each, at most.
_PLACES, _EVALUATIONS = 3, 60


class Profiler(Protocol):
    """A search that can hold an entry and estimate all others."""

    best: Point | None
    best_x: np.ndarray
    see: Callable[..., Point]
    look: Callable[..., Point]
    profile: Callable[..., Any]


def lower_inside(search: Profiler, entries: Int[np.ndarray, " entry"], clearly: float) -> bool:
    """Return whether the objective is lower inside the range of an entry that has come to the end of it, and go there.

    Each entry is held at some places where the objective depends on it, and all other entries are estimated anew. A
    place counts as lower where −log likelihood is lower by more than ``clearly``.
    """
    assert search.best is not None
    for entry in map(int, entries):
        for place in _felt_places(search, entry):
            found = search.profile(place, entry, _EVALUATIONS)
            if found.point.value < search.best.value - clearly:
                search.see(np.insert(found.x, entry, place[entry]), found.point.state, 0.0)
                return True
    return False


def _felt_places(search: Profiler, entry: int) -> list[Float[np.ndarray, " parameter"]]:
    """Return the first places inwards of the end of an entry's range at which the objective feels it."""
    assert search.best is not None
    inward = -np.sign(search.best_x[entry]) * np.log(10) * np.eye(search.best_x.size)[entry]
    places = [search.best_x + inward * decades for decades in _INWARD]
    values = np.array([search.look(x, search.best.state).value for x in places])
    felt = np.flatnonzero(np.abs(values - search.best.value) > FELT)
    return [places[index] for index in felt[:_PLACES]]
