"""Padding of axes, and the sizes that padded axes take."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

if TYPE_CHECKING:
    from hierax.data.population import Population


def bucket_size(size: int) -> int:
    """Return the smallest bucket that holds ``size``: four per doubling (..., 8, 10, 12, 14, 16, 20, ...)."""
    if size <= 4:
        return size
    step = 2 ** (int(np.ceil(np.log2(size))) - 3)
    return int(-(-size // step) * step)


def pad_axis(pop: Population, axis: int, size: int) -> Population:
    """Pad the subject axis (0) or the record axis (1) of every array that has it."""
    # Frozen ODE steps are dropped, because they were sorted among the records and doses of the unpadded population.
    pop = dataclasses.replace(pop, grids={})
    if axis == 0:
        padded = jax.tree.map(lambda leaf: _repeat_first(np.asarray(leaf), size), pop)
        off = np.arange(size) < pop.n_subjects
        mask = {name: leaf & off[:, None] for name, leaf in padded.mask.items()}
        return dataclasses.replace(
            padded,
            mask=mask,
            subject_mask=padded.subject_mask & off,
            events=dataclasses.replace(padded.events, mask=padded.events.mask & off[:, None]),
        )
    old = pop.n_records

    def grow(leaf: Any) -> Any:
        leaf = np.asarray(leaf)
        if leaf.ndim < 2 or leaf.shape[1] != old:
            return leaf
        widths = [(0, 0), (0, size - old)] + [(0, 0)] * (leaf.ndim - 2)
        return np.pad(leaf, widths, mode="constant" if leaf.dtype == bool else "edge")

    def grow_all(leaves: dict[str, Any]) -> dict[str, Any]:
        return {name: grow(leaf) for name, leaf in leaves.items()}

    return dataclasses.replace(
        pop,
        times=grow(pop.times),
        dv=grow_all(pop.dv),
        mask=grow_all(pop.mask),
        covariates=grow_all(pop.covariates) if old > 1 else pop.covariates,
        records=grow_all(pop.records),
        record_mask=grow(pop.record_mask),
        segment=grow(pop.segment),
        occasion=None if pop.occasion is None else grow(pop.occasion),
        cens=grow_all(pop.cens),
        limit=grow_all(pop.limit),
    )


def _repeat_first(leaf: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([leaf, np.repeat(leaf[:1], size - len(leaf), axis=0)])
