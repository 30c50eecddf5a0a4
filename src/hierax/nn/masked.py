"""The networks of flow layers: autoregressive ones, whose k-th outputs see the inputs before the k-th, and others."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# The names of hidden layers begin with this, and penalties leave these layers out: beside the penalty on the last
# layer, one on the hidden layers would only make their outputs small.
INNER = "inner"
# Random biases at the start, so that hidden units bend at different places; with biases of 0 all would bend at 0.
_RANDOM_BIAS = linen.initializers.normal(1.0)


class _MaskedDense(linen.Module):
    """A dense layer some of whose connections are cut."""

    mask: tuple[tuple[bool, ...], ...]
    kernel_init: Any = linen.initializers.lecun_normal()
    bias_init: Any = linen.initializers.zeros

    def setup(self) -> None:
        mask = np.array(self.mask, float)
        self.kernel = self.param("kernel", self.kernel_init, mask.shape)
        self.bias = self.param("bias", self.bias_init, mask.shape[1:])

    def __call__(self, x: Array) -> Array:
        return x @ (self.kernel * np.array(self.mask, float)) + self.bias


def _mask(before: np.ndarray, after: np.ndarray, *, strict: bool) -> tuple[tuple[bool, ...], ...]:
    allowed = after[None, :] > before[:, None] if strict else after[None, :] >= before[:, None]
    return tuple(map(tuple, allowed.tolist()))


class Autoregressive(linen.Module):
    """Inputs (..., size) → outputs (..., size, outputs), all zero before any training.

    The k-th outputs depend only on the inputs before the k-th and on the context (Germain, Gregor, Murray & Larochelle
    2015).

    Examples
    --------
    >>> hx.nn.Autoregressive(size=3, outputs=2).size
    3
    """

    size: int
    outputs: int
    width: int = 16
    depth: int = 1

    def setup(self) -> None:
        """Make the layers; called by flax."""
        # Units of degree k depend on the first k inputs; those of degree 0 depend on the context only.
        inputs, self.degrees = np.arange(1, self.size + 1), np.arange(self.width) % self.size
        before = [inputs] + [self.degrees] * (self.depth - 1)
        self.inner = [_MaskedDense(_mask(b, self.degrees, strict=False), bias_init=_RANDOM_BIAS) for b in before]
        self.context = linen.Dense(self.width, use_bias=False)
        mask = _mask(self.degrees, np.repeat(inputs, self.outputs), strict=True)
        self.last = _MaskedDense(mask, kernel_init=linen.initializers.zeros)

    def __call__(self, x: Float[Array, "... size"], context: Array | None = None) -> Float[Array, "... size output"]:
        """Return the outputs."""
        h = x
        for index, layer in enumerate(self.inner):
            h = layer(h)
            if context is not None and index == 0:
                h = h + self.context(context)
            h = jax.nn.squareplus(h)
        out = self.last(h)
        return out.reshape(*out.shape[:-1], self.size, self.outputs)

    def unrolled(
        self, coordinate: Callable[[int, Array], Array], context: Array | None = None
    ) -> Float[Array, "... size"]:
        """Return inputs whose k-th is ``coordinate(k, k-th outputs)``, which depend on the inputs before the k-th.

        Every unit is computed once, as soon as the inputs that it depends on are known, and is added at once to the
        sums of all units that depend on it. Units that depend on no input have no batch axes, and cost next to nothing.
        """
        order = np.argsort(self.degrees, kind="stable")
        ends = np.cumsum(np.bincount(self.degrees, minlength=self.size))[:-1]
        sums = [_Sums(layer.bias[order], ends) for layer in self.inner]
        outputs = _Sums(self.last.bias, self.outputs * np.arange(1, self.size))
        if context is not None:
            sums[0].add(0, self.context(context)[..., order])
        kernels = [*(layer.kernel[order][:, order] for layer in self.inner[1:]), self.last.kernel[order]]
        first, values = self.inner[0].kernel[:, order], []
        for k in range(self.size):
            for layer, after, kernel in zip(sums, [*sums[1:], outputs], kernels, strict=True):
                units = jax.nn.squareplus(layer.parts[k])
                after.add(k, units @ kernel[layer.edges[k] : layer.edges[k + 1], after.edges[k] :])
            values.append(coordinate(k, outputs.parts[k]))
            if k + 1 < self.size:
                sums[0].add(k + 1, values[k][..., None] * first[k, sums[0].edges[k + 1] :])
        return jnp.stack(values, axis=-1)


class _Sums:
    """The sums that a layer's units take as input, by degree; those that all subjects share have no batch axes."""

    def __init__(self, bias: Array, ends: np.ndarray):
        self.edges = [0, *map(int, ends), len(bias)]
        self.parts = [bias[a:b] for a, b in itertools.pairwise(self.edges)]

    def add(self, degree: int, terms: Array) -> None:
        """Add terms to the units of a degree and above."""
        for k in range(degree, len(self.parts)):
            begin, end = (edge - self.edges[degree] for edge in self.edges[k : k + 2])
            self.parts[k] = self.parts[k] + terms[..., begin:end]


class Conditioner(linen.Module):
    """Inputs and a context → outputs (..., size, outputs), all zero before any training.

    Examples
    --------
    >>> hx.nn.Conditioner(size=3, outputs=2).outputs
    2
    """

    size: int
    outputs: int
    width: int = 16
    depth: int = 1

    @linen.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        """Return the outputs."""
        h = x
        for index in range(self.depth):
            h = linen.Dense(self.width, bias_init=_RANDOM_BIAS, name=f"{INNER}_{index}")(h)
            if context is not None and index == 0:
                h = h + linen.Dense(self.width, use_bias=False, name="context")(context)
            h = jax.nn.squareplus(h)
        out = linen.Dense(self.size * self.outputs, kernel_init=linen.initializers.zeros, name="last")(h)
        return out.reshape(*out.shape[:-1], self.size, self.outputs)
