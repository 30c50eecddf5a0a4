"""Choosing a distribution of random effects, and the strength of its penalty, by subjects that are held out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hierax.infer.learn.two_stage import Build, Draws, Learner, Trained

# Weaker penalties are no longer tried once this many in a row have been worse than the best one.
_WORSE_IN_A_ROW = 2
# Number of permutations of each covariate, over which its importance is averaged.
_PERMUTATIONS = 5


@dataclasses.dataclass(frozen=True)
class Split:
    """Which subjects are held out: several parts in turn (cross-validation), or one part.

    Attributes
    ----------
    rows : array of int
        All real subjects.
    parts : list of arrays
        The rows to hold out.
    patience : int or None
        Number of looks at the held-out subjects without a gain after which training stops early; None for no early
        stopping.
    seed : int
    """

    rows: np.ndarray
    parts: list[np.ndarray]
    patience: int | None
    seed: int

    @classmethod
    def of(cls, rows: np.ndarray, folds: int, held_out: float | None, patience: int, seed: int) -> Split:
        """Return ``folds`` parts of about the same size, or one with a fraction of the subjects."""
        order = np.random.default_rng(seed).permutation(rows)
        if held_out is None:
            return cls(rows, [np.sort(order[fold::folds]) for fold in range(folds)], None, seed)
        return cls(rows, [np.sort(order[: max(1, round(held_out * len(rows)))])], patience, seed)


@dataclasses.dataclass
class Choice:
    """The held-out gains of one candidate distribution, by the strength of its penalty.

    Attributes
    ----------
    name : str
    learner : Learner
    split : Split
    gains : dict
        Strength → gain of every subject while it was held out (NaN for those that never were).
    found : dict
        Strength → what was learned, by part.
    others : list of Choice
        The candidates that were not chosen.
    """

    name: str
    learner: Learner
    split: Split
    gains: dict[float, np.ndarray] = dataclasses.field(default_factory=dict)
    found: dict[float, list[Trained]] = dataclasses.field(default_factory=dict)
    others: list[Choice] = dataclasses.field(default_factory=list)

    def mean(self, strength: float) -> float:
        """Return the mean held-out gain of a strength; −∞ if it is not finite."""
        value = float(np.nanmean(self.gains[strength])) if np.isfinite(self.gains[strength]).any() else -np.inf
        return value if np.isfinite(value) else -np.inf

    @property
    def strength(self) -> float:
        """The strength with the highest held-out gain."""
        return max(self.gains, key=self.mean)

    @property
    def table(self) -> pd.DataFrame:
        """Mean gain and its SE by candidate and strength."""
        rows = [
            (one.name, strength, one.mean(strength), np.nanstd(gains, ddof=1) / np.sqrt(np.isfinite(gains).sum()))
            for one in (self, *self.others)
            for strength, gains in one.gains.items()
        ]
        return pd.DataFrame(rows, columns=["distribution", "strength", "gain", "se"])

    def final(self) -> Trained:
        """Return what is learned from all subjects; with early stopping, what was found without the held-out ones."""
        if self.split.patience is not None:
            return self.found[self.strength][0]
        return self.learner.train(self.mask(self.split.rows), self.strength)

    def mask(self, rows: np.ndarray) -> np.ndarray:
        """Return a mask of these rows of the population, (subject,)."""
        return np.isin(np.arange(self.learner.draws.z.shape[1]), rows)

    def try_out(self, strength: float) -> None:
        """Train without each part in turn, and record the gains of its subjects."""
        split = self.split
        gains = np.full(len(split.rows), np.nan)
        self.found[strength] = []
        for out in split.parts:
            early = {} if split.patience is None else {"watched": self.mask(out), "patience": split.patience}
            trained = self.learner.train(self.mask(np.setdiff1d(split.rows, out)), strength, **early)
            gains[np.searchsorted(split.rows, out)] = np.asarray(trained.gain)[out]
            self.found[strength].append(trained)
        self.gains[strength] = gains

    def importance(self, places: Mapping[str, Sequence[int]], seed: int) -> pd.DataFrame:
        """Return how much gain held-out subjects lose if a covariate is permuted between them, by covariate.

        Parameters
        ----------
        places : mapping
            Covariate → its columns of the context.
        """
        rng, rows, context = np.random.default_rng(seed), self.split.rows, np.asarray(self.learner.draws.context)
        lost = {name: np.full((_PERMUTATIONS, len(rows)), np.nan) for name in places}
        for out, trained in zip(self.split.parts, self.found[self.strength], strict=True):
            at = np.searchsorted(rows, out)
            own = np.asarray(trained.gain)[out]
            for name, columns in places.items():
                for turn in range(_PERMUTATIONS):
                    order = rng.permutation(out)
                    other = context.copy()
                    for column in columns:
                        other[out, 0, column] = context[order, 0, column]
                    lost[name][turn, at] = own - np.asarray(self.learner.gain_with(trained.flat, other))[out]
        subjects = {name: values.mean(0) for name, values in lost.items()}
        table = {name: _summary(one[np.isfinite(one)]) for name, one in subjects.items()}
        return pd.DataFrame(table.values(), index=pd.Index(table, name="covariate"), columns=["gain", "se", "p"])


def _summary(lost: np.ndarray) -> tuple[float, float, float]:
    """Return mean, SE and p value; the test is by ranks, because a few subjects may lose enormously."""
    from scipy.stats import wilcoxon

    ranks: Any = wilcoxon(lost, alternative="greater") if np.any(lost) else None
    p = 1.0 if ranks is None else float(ranks.pvalue)
    return float(lost.mean()), float(lost.std(ddof=1) / np.sqrt(len(lost))), p


def choose(
    candidates: Mapping[str, Build], draws: Draws, split: Split, penalties: Sequence[float], steps: int
) -> Choice:
    """Return the candidate that makes held-out subjects most likely; strengths are tried from strong to weak."""
    choices = []
    for name, build in candidates.items():
        choice = Choice(name, Learner(build, draws, split.seed, steps), split)
        for strength in sorted(penalties, reverse=True):
            choice.try_out(strength)
            if list(choice.gains).index(choice.strength) + _WORSE_IN_A_ROW < len(choice.gains):
                break
        choices.append(choice)
    best = max(choices, key=lambda choice: choice.mean(choice.strength))
    best.others = [choice for choice in choices if choice is not best]
    return best
