"""Networks whose k-th outputs depend on the inputs before the k-th alone, and on a context."""

from __future__ import annotations

from typing import Any

import flax.linen as linen
import jax
import numpy as np
from jaxtyping import Array, Float

# Layers between are called so: a penalty of theirs, beside that of the last one, would only starve them.
INNER = "inner"
# Hidden units bend at different places from the start: with biases of 0 all would bend at 0 alone.
_SPREAD = linen.initializers.normal(1.0)


class _MaskedDense(linen.Module):
    """A dense layer some of whose connections are cut."""

    mask: tuple[tuple[bool, ...], ...]
    kernel_init: Any = linen.initializers.lecun_normal()
    bias_init: Any = linen.initializers.zeros

    @linen.compact
    def __call__(self, x: Array) -> Array:
        mask = np.array(self.mask, float)
        kernel = self.param("kernel", self.kernel_init, mask.shape)
        bias = self.param("bias", self.bias_init, mask.shape[1:])
        return x @ (kernel * mask) + bias


def _mask(before: np.ndarray, after: np.ndarray, *, strict: bool) -> tuple[tuple[bool, ...], ...]:
    allowed = after[None, :] > before[:, None] if strict else after[None, :] >= before[:, None]
    return tuple(map(tuple, allowed.tolist()))


class Autoregressive(linen.Module):
    """Inputs (..., size) → outputs (..., size, outputs), all zero before any training.

    Germain, Gregor, Murray & Larochelle (2015).
    """

    size: int
    outputs: int
    width: int = 16
    depth: int = 1

    @linen.compact
    def __call__(self, x: Float[Array, "... size"], context: Array | None = None) -> Float[Array, "... size output"]:
        """Return the outputs."""
        # Units of degree k see the first k inputs; those of degree 0 see the context alone.
        inputs, hidden = np.arange(1, self.size + 1), np.arange(self.width) % self.size
        h, degrees = x, inputs
        for index in range(self.depth):
            mask = _mask(degrees, hidden, strict=False)
            h = _MaskedDense(mask, bias_init=_SPREAD, name=f"{INNER}_{index}")(h)
            if context is not None and index == 0:
                h = h + linen.Dense(self.width, use_bias=False, name="context")(context)
            h, degrees = jax.nn.squareplus(h), hidden
        last = np.repeat(inputs, self.outputs)
        out = _MaskedDense(_mask(degrees, last, strict=True), kernel_init=linen.initializers.zeros, name="last")(h)
        return out.reshape(*out.shape[:-1], self.size, self.outputs)


class Conditioner(linen.Module):
    """Inputs and a context → outputs (..., size, outputs), all zero before any training."""

    size: int
    outputs: int
    width: int = 16
    depth: int = 1

    @linen.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        """Return the outputs."""
        h = x
        for index in range(self.depth):
            h = linen.Dense(self.width, bias_init=_SPREAD, name=f"{INNER}_{index}")(h)
            if context is not None and index == 0:
                h = h + linen.Dense(self.width, use_bias=False, name="context")(context)
            h = jax.nn.squareplus(h)
        out = linen.Dense(self.size * self.outputs, kernel_init=linen.initializers.zeros, name="last")(h)
        return out.reshape(*out.shape[:-1], self.size, self.outputs)
