"""Where a search has been, by which a likelihood without a maximum is known."""

from __future__ import annotations

import numpy as np

from hierax.infer.search.approach import Seeker

# An entry is suspected where it has moved so far from the start of the search, in logarithms: a factor of 1e8.
_FAR = 18.0
# The fall over the last half of that way has to be like the one over the half before it, but for this factor, and
# steep enough (log likelihood by unit of the logarithm) to be felt.
_ALIKE, _FELT = 1.4, 0.05


class Trail:
    """The best points of a search, one after the other.

    A likelihood without a maximum falls with a constant slope in the logarithm of a scale: n observations that are
    fitted exactly are each as much likelier, the smaller the scale is. In an ordinary valley slopes vanish.

    Parameters
    ----------
    bounded : array of bool, (parameter,)
        Which entries are logarithms or logits.
    """

    def __init__(self, bounded: np.ndarray):
        self.bounded = bounded
        self.places: list[np.ndarray] = []
        self.values: list[float] = []

    def add(self, x: np.ndarray, value: float) -> None:
        """Note where the search is, and the objective there."""
        self.places.append(x)
        self.values.append(value)

    def unbounded(self) -> np.ndarray:
        """Return along which entries the objective falls without bound, (parameter,)."""
        places = np.array(self.places)
        x, moved = places[-1], places[-1] - places[0]
        # Coming back from a start that is far off is no falling without bound.
        far = self.bounded & (np.abs(moved) > _FAR) & (moved * x > 0)
        if not far.any():
            return far
        way = np.abs(places[:, far] - x[far]).max(-1)
        half, whole = (np.flatnonzero(way >= length)[-1] for length in (_FAR / 2, _FAR))
        last = (self.values[half] - self.values[-1]) / way[half]
        first = (self.values[whole] - self.values[half]) / max(way[whole] - way[half], 1e-9)
        # Scales that fall together have not all come quite as far.
        along = self.bounded & (np.abs(moved) > 0.75 * _FAR) & (moved * x > 0)
        return along & bool(last > _FELT and 1 / _ALIKE < first / last < _ALIKE)


def falls_on(search: Seeker, entries: np.ndarray, clearly: float) -> bool:
    """Return whether the objective goes on falling where these entries alone go another decade outwards.

    On the way here other parameters may have made it fall.
    """
    assert search.best is not None
    further = search.best_x + np.where(entries, np.sign(search.best_x) * np.log(10), 0.0)
    return bool(search.look(further, search.best.state).value < search.best.value - clearly)
