"""The path of a search, by which a likelihood without a maximum is recognised."""

from __future__ import annotations

import numpy as np

from hierax.infer.search.approach import Seeker

# The likelihood may have no maximum along a parameter that has moved by more than this from the start of the search, in
# units of its logarithm: a factor of nearly 1e8.
_FAR = 18.0
# Along such a parameter the likelihood has no maximum if its slope over the last half of that way is nearly the same as
# over the half before it: within this factor, up or down.
_ALIKE = 1.4
# The slope also has to be larger than this, in units of log likelihood per unit of the parameter's logarithm.
_STEEP = 0.05


class Trail:
    """The best points of a search, one after the other.

    Where the likelihood has no maximum, the objective falls with a constant slope in the logarithm of a scale
    parameter: halving it makes each of the observations that are fitted exactly twice as likely. In an ordinary valley
    slopes vanish.

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
        # A parameter that only comes back from a start far out does not count.
        far = self.bounded & (np.abs(moved) > _FAR) & (moved * x > 0)
        if not far.any():
            return far
        way = np.abs(places[:, far] - x[far]).max(-1)
        half, whole = (np.flatnonzero(way >= length)[-1] for length in (_FAR / 2, _FAR))
        last = (self.values[half] - self.values[-1]) / way[half]
        first = (self.values[whole] - self.values[half]) / max(way[whole] - way[half], 1e-9)
        # Of several scale parameters that fall together, some have not come quite as far.
        along = self.bounded & (np.abs(moved) > 0.75 * _FAR) & (moved * x > 0)
        return along & bool(last > _STEEP and 1 / _ALIKE < first / last < _ALIKE)


def falls_on(search: Seeker, entries: np.ndarray, clearly: float) -> bool:
    """Return whether the objective goes on falling when these parameters alone move another decade outwards.

    The fall on the way here may have come from other parameters.
    """
    assert search.best is not None
    further = search.best_x + np.where(entries, np.sign(search.best_x) * np.log(10), 0.0)
    return bool(search.look(further, search.best.state).value < search.best.value - clearly)
