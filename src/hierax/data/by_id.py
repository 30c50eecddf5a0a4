"""Subjects of a population by their ids."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from hierax.data.population import Population


@dataclasses.dataclass(frozen=True)
class ById:
    """Indexing of a population by the ids of its subjects, like ``loc`` of pandas."""

    pop: Population

    def __getitem__(self, ids: Any) -> Population:
        if not isinstance(self.pop.ids, tuple):
            raise ValueError("This population has lost its ids, because it came out of a compiled function. Use rows.")
        if isinstance(ids, slice):
            raise ValueError("pop.loc takes ids, not a slice of them. Use pop[1:4] for positions, or a list of ids.")
        wanted = [ids] if isinstance(ids, str) or np.ndim(ids) == 0 else list(ids)
        rows: Mapping[Any, int] = {subject: row for row, subject in enumerate(self.pop.ids)}
        unknown = [subject for subject in wanted if subject not in rows]
        if unknown:
            raise KeyError(f"No subject has ID {unknown}; the IDs are {list(self.pop.ids)[:20]}...")
        return self.pop[np.array([rows[subject] for subject in wanted])]


def positions(rows: Any, count: int) -> np.ndarray:
    """Return the positions that an index picks from ``count`` subjects, or raise an IndexError that says what fits."""
    try:
        return np.atleast_1d(np.arange(count)[rows])
    except IndexError:
        shown = repr(rows) if len(repr(rows)) < 60 else repr(rows)[:57] + "..."
        raise IndexError(
            f"pop[{shown}] cannot pick subjects by position, because the population has {count} subjects, numbered "
            f"from 0. Give whole numbers below {count}, a slice, or a mask of length {count}. To pick subjects by "
            f"their IDs, use pop.loc[...]."
        ) from None
