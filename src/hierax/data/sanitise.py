"""Replacing the values in the padding of a population by finite ones, inside traced code."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from hierax.data.population import Population


def sanitise(pop: Population) -> Population:
    """Return the population with finite values in padded subjects and padded records, inside traced code.

    Masks keep padding out of every sum, but a NaN in the padding would make derivatives NaN in spite of the mask. Once
    the values are replaced, no result and no derivative depends on what the padding held.
    """
    real = jnp.asarray(pop.subject_mask)
    first = jnp.argmax(real)

    def row(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        return jnp.where(real.reshape((-1,) + (1,) * (leaf.ndim - 1)), leaf, leaf[first])

    clean = jax.tree.map(row, pop)
    held = jnp.asarray(clean.record_mask)
    final = jnp.max(jnp.where(held, jnp.arange(held.shape[1]), 0), axis=1, keepdims=True)
    last = jnp.take_along_axis(clean.times, final, axis=1)
    mask = {name: leaf & held & real[:, None] for name, leaf in clean.mask.items()}

    def hold(leaf: Any) -> Any:
        varying = leaf.ndim >= 2 and leaf.shape[1] == held.shape[1] and leaf.shape[1] > 1
        return jnp.where(held.reshape(held.shape + (1,) * (leaf.ndim - 2)), leaf, leaf[:, :1]) if varying else leaf

    dose = jnp.asarray(clean.events.mask)
    events = jax.tree.map(lambda leaf: jnp.where(dose, leaf, jnp.zeros_like(leaf)), clean.events)
    return dataclasses.replace(
        clean,
        times=jnp.where(held, clean.times, last),
        segment=jnp.where(held, clean.segment, jnp.take_along_axis(clean.segment, final, axis=1)),
        dv={name: jnp.where(mask[name], leaf, 0.0) for name, leaf in clean.dv.items()},
        mask=mask,
        covariates={name: hold(leaf) for name, leaf in clean.covariates.items()},
        events=events,
        subject_mask=real,
    )
