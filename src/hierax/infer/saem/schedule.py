"""SAEM's phases: how long each lasts, and what its steps are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hierax.infer.saem.state import Schedule

if TYPE_CHECKING:
    from hierax.infer.saem.saem import SAEM

# Iterations that are compiled and run together; between two blocks progress is shown and phases are judged.
BLOCK = 25
# Steps of the smoothing phase fall as k to minus this power, and the estimate is the mean over the last three quarters
# of the phase. This is as precise as steps of 1/k are at best, whatever the share of missing information (Polyak &
# Juditsky 1992).
_POWER = 0.7
# The exploratory phase ends early if this many last iterations show no trend, but not before this many in all.
_WINDOW, _FEWEST_EXPLORATORY = 50, 100
# The smoothing phase ends early if a block changes no parameter's mean by more than this part of its SD at the end of
# the exploratory phase, but not before this many iterations.
_STILL, _FEWEST_SMOOTHING = 0.015, 100


class Phases:
    """The schedule of the two phases: what the next block of iterations does, and when a phase is over.

    Attributes
    ----------
    done : int
        Number of iterations so far.
    explored : int or None
        Iteration at which the exploratory phase ended; None before that.
    """

    def __init__(self, saem: SAEM, parameters: np.ndarray):
        self.saem, self.parameters = saem, parameters
        self.done, self.explored, self.finished = 0, None, False
        self.trace = np.zeros((0, int(parameters.sum())))

    def state(self) -> dict[str, np.ndarray]:
        """Return everything that the next block depends on."""
        explored = -1 if self.explored is None else self.explored
        numbers = {"done": self.done, "explored": explored, "finished": int(self.finished)}
        return {**{name: np.array(value) for name, value in numbers.items()}, "trace": self.trace}

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        """Go on where a saved run stood."""
        explored = int(saved["explored"])
        self.done, self.explored = int(saved["done"]), None if explored < 0 else explored
        self.trace, self.finished = np.asarray(saved["trace"]), bool(saved["finished"])

    @property
    def phase(self) -> str:
        """Name of the phase that the next block belongs to."""
        return "exploratory" if self.explored is None else "smoothing"

    def next(self) -> Schedule:
        """Return what the next block does."""
        numbers = self.done + np.arange(BLOCK)
        if self.explored is None:
            active = numbers < self.saem.burn_in + self.saem.exploratory
            step = np.where(numbers < self.saem.burn_in, 0.0, 1.0)
            gain = np.ones(BLOCK)
        else:
            after = numbers - self.explored
            active = after < self.saem.smoothing
            step = (after + 2.0) ** -_POWER
            gain = np.maximum(step, 0.02)
        cooling = numbers < self.saem.burn_in + self.saem.exploratory // 3
        annealing = np.where(cooling & (self.explored is None), self.saem.annealing, 0.0)
        return Schedule(active, step, gain, annealing, np.where(annealing > 0, 0.2, 1.0))

    def take(self, schedule: Schedule, flat: np.ndarray) -> None:
        """Take note of a block that has run, (iteration, parameter), and judge whether its phase is over."""
        active = np.asarray(schedule.active)
        self.trace = np.concatenate([self.trace, flat[active][:, self.parameters]])
        self.done += int(active.sum())
        if self.explored is None:
            full = self.done >= self.saem.burn_in + self.saem.exploratory
            if full or (self.saem.automatic and self._settled()):
                self.explored = self.done
            return
        after = self.done - self.explored
        self.finished = after >= self.saem.smoothing or (self.saem.automatic and self._still(after))

    def averaged(self, trace: np.ndarray) -> np.ndarray:
        """Return the mean over the last three quarters of the smoothing phase, or the last row before there is one."""
        if self.explored is None or len(trace) <= self.explored:
            return trace[-1]
        return trace[self.explored + (len(trace) - self.explored) // 4 :].mean(0)

    def spread(self) -> np.ndarray:
        """Return the SD of every parameter over the end of the exploratory phase."""
        end = len(self.trace) if self.explored is None else self.explored
        return self.trace[max(end - _WINDOW, 0) : end].std(0)

    def _settled(self) -> bool:
        earliest = max(_FEWEST_EXPLORATORY, self.saem.exploratory // 3 + _WINDOW) + self.saem.burn_in
        if self.done < earliest:
            return False
        return bool(np.all(np.abs(trend(self.trace[-_WINDOW:])) < 2.0))

    def _still(self, after: int) -> bool:
        if after < _FEWEST_SMOOTHING:
            return False
        moved = np.abs(self.averaged(self.trace) - self.averaged(self.trace[:-BLOCK]))
        return bool(np.all(moved <= _STILL * self.spread() + 1e-12))


def trend(series: np.ndarray) -> np.ndarray:
    """Return t statistics of linear trends, (parameter,), that allow for first-order autocorrelation of residuals."""
    n = len(series)
    time = np.arange(n) - (n - 1) / 2
    slope = time @ series / (time @ time)
    left = series - series.mean(0) - np.outer(time, slope)
    variance = (left**2).sum(0) / (n - 2)
    safe = np.where(variance > 0, variance, 1.0)
    rho = np.clip((left[1:] * left[:-1]).sum(0) / ((n - 1) * safe), 0.0, 0.95)
    error = np.sqrt(safe * (1 + rho) / (1 - rho) / (time @ time))
    return np.where(variance > 0, slope / error, 0.0)
