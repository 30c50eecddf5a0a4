"""The learning rates of variational inference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hierax.infer.vi.bound import BLOCK

if TYPE_CHECKING:
    from hierax.infer.vi.vi import VI


class Course:
    """The schedule of learning rates: constant until the smoothed bound has no trend, then falling to a hundredth.

    Parameters
    ----------
    network : bool
        Whether the program has a network to train.

    Attributes
    ----------
    done : int
        Number of steps so far.
    turned : int or None
        Step at which the rate began to fall; None before that.
    """

    # Blocks whose mean bound is compared with that of as many blocks before, to see whether the bound still rises.
    _WINDOW = 5

    def __init__(self, vi: VI, network: bool = False):
        self.vi, self.done, self.turned = vi, 0, None
        self.network = network or not vi.guide.local
        self.bounds: list[float] = []
        self.cooling = max(-(-vi.steps // 3 // BLOCK), 1) * BLOCK

    def state(self) -> dict[str, np.ndarray]:
        """Return everything that the next block depends on."""
        turned = -1 if self.turned is None else self.turned
        numbers = {"done": self.done, "turned": turned, "cooling": self.cooling, "bounds": self.bounds}
        return {name: np.array(value) for name, value in numbers.items()}

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        """Go on where a saved run stood."""
        turned = int(saved["turned"])
        self.done, self.turned = int(saved["done"]), None if turned < 0 else turned
        self.cooling, self.bounds = int(saved["cooling"]), saved["bounds"].tolist()

    @property
    def finished(self) -> bool:
        """Whether the rate has fallen all the way."""
        return self.turned is not None and self.done >= self.turned + self.cooling

    @property
    def fell(self) -> bool:
        """Whether the bound ended below its first value by more than its noise, because steps were too long."""
        last = np.array(self.bounds[-BLOCK:])
        # Medians, because the bounds of runs that go wrong have outliers of any size.
        middle = np.median(last)
        return bool(middle + 10 * np.median(np.abs(last - middle)) < self.bounds[0])

    def rates(self) -> np.ndarray:
        """Return the learning rates of the next block."""
        number = self.done + np.arange(BLOCK)
        if self.turned is None:
            return np.full(BLOCK, self.vi.learning_rate)
        share = (number - self.turned) / self.cooling
        return self.vi.learning_rate * 0.01**share

    def take(self, bounds: np.ndarray) -> None:
        """Take note of the bounds of a block, and judge whether the rate should begin to fall."""
        self.done += BLOCK
        self.bounds += [float(value) for value in bounds]
        if self.turned is not None:
            return
        full = self.done >= self.vi.steps - self.cooling
        if full or (self.vi.automatic and self._flat()):
            self.turned = self.done
            # After an early end the rate falls for half as many steps as there were (three blocks at least), and never
            # for longer than planned.
            self.cooling = min(self.cooling, max(self.done // 2 // BLOCK, 3) * BLOCK)

    def _flat(self) -> bool:
        """Return whether the mean bound of the last blocks exceeds that of as many before by no more than its noise."""
        means = np.array(self.bounds).reshape(-1, BLOCK).mean(1)
        # A network may learn slowly for long, so that its windows grow with the number of blocks so far.
        window = self._WINDOW if not self.network else max(3 * self._WINDOW, len(means) // 4)
        if len(means) < 2 * window:
            return False
        before, after = means[-2 * window : -window], means[-window:]
        noise = np.sqrt((before.var(ddof=1) + after.var(ddof=1)) / window)
        return bool(after.mean() - before.mean() < 2 * noise)
