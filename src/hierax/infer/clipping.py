"""Cutting of gradients that are far longer than usual, because one outlier misdirects Adam's steps for a long time."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

# How much longer than usual a gradient may be, and over how many steps "usual" is averaged.
_LONGEST, _MEMORY = 5.0, 100


class _Usual(NamedTuple):
    """The running geometric mean of gradients' lengths, after cutting; 0 before the first."""

    length: Array


def cut_outliers() -> optax.GradientTransformation:
    """Return a transformation that cuts gradients to five times their usual length.

    Adam divides the mean gradient over some ten steps by the root of the mean square over some thousand. After a
    gradient that is a thousand times too long every entry moves by about three learning rates, and goes on moving for
    ten steps. Densities with flows have such gradients wherever a draw falls outside the region where earlier draws
    fell.
    """

    def init(params: Any) -> _Usual:
        del params
        return _Usual(jnp.zeros(()))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, _Usual]:
        del params
        length = jnp.sqrt(sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(updates)), jnp.zeros(())))
        before = jnp.where(state.length > 0, state.length, length)
        kept = jnp.minimum(length, _LONGEST * before)
        share = jnp.where(length > kept, kept / length, 1.0)
        # The mean is geometric, so that a first gradient that is an outlier itself is soon forgotten.
        tiny = jnp.finfo(kept.dtype).tiny
        usual = before * (jnp.maximum(kept, tiny) / jnp.maximum(before, tiny)) ** (1 / _MEMORY)
        return jax.tree.map(lambda leaf: leaf * share, updates), _Usual(usual)

    return optax.GradientTransformation(init, update)
