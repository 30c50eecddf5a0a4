"""Named covariates of each subject as one standardised vector."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hierax.data.population import Population


@dataclasses.dataclass(frozen=True)
class Context:
    """Named covariates as one vector per subject, centred and scaled by the population that it was made from.

    Of a covariate that varies over time, the first value is used. A category becomes one column of 0 and 1 for each
    level but the first. A vector keeps its columns, which are standardised.

    Attributes
    ----------
    names : tuple of str
        Covariates, of ``pop.covariates`` or ``pop.data``.
    sizes : tuple of int
        How many columns each covariate has.
    levels : dict
        Category → its number of levels.
    centre, scale : arrays, (column,)
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    levels: dict[str, int]
    centre: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, pop: Population, names: Sequence[str] | str) -> Context:
        """Return the context of these covariates, standardised by this population.

        Raises
        ------
        ValueError
            No names, or a name that is not in the population.
        """
        names = (names,) if isinstance(names, str) else tuple(names)
        there = [*pop.covariates, *pop.data]
        missing = [name for name in names if name not in there]
        if missing or not names:
            raise ValueError(
                f"covariates={list(names)} must name some of the population's covariates and data {there}, not "
                f"{missing}."
            )
        levels = {name: len(pop.labels[name]) for name in names if name in pop.labels}
        bare = cls(names, (), levels, np.zeros(1), np.ones(1))
        rows = np.flatnonzero(np.asarray(pop.subject_mask))
        parts = [np.asarray(bare._raw(pop, name))[rows, 0] for name in names]
        values = np.concatenate(parts, axis=-1)
        sizes = tuple(part.shape[-1] for part in parts)
        spread = values.std(0)
        return cls(names, sizes, levels, values.mean(0), np.where(spread > 0, spread, 1.0))

    @property
    def places(self) -> dict[str, list[int]]:
        """Positions of each covariate's columns."""
        ends = np.cumsum(self.sizes)
        return {
            name: list(range(end - size, end)) for name, size, end in zip(self.names, self.sizes, ends, strict=True)
        }

    def __call__(self, pop: Population) -> Float[Array, "subject 1 column"]:
        """Return the context of a population's subjects."""
        raw = jnp.concatenate([self._raw(pop, name) for name in self.names], axis=-1)
        return (raw - self.centre) / self.scale

    def _raw(self, pop: Population, name: str) -> Float[Array, "subject 1 k"]:
        value = jnp.asarray((pop.covariates if name in pop.covariates else pop.data)[name])
        if name in self.levels:
            return (value[:, :1, None] == jnp.arange(1, self.levels[name])).astype(float)
        if value.ndim == 3:
            return value[:, :1].astype(float)
        # (subject,) and (subject, k) are data that with_data added; (subject, time) is a covariate.
        if name in pop.covariates:
            return value[:, :1, None].astype(float)
        return value.reshape(value.shape[0], 1, -1).astype(float)
