"""Heads: networks whose outputs have known properties (positive, bounded, monotone), whatever their weights."""

from __future__ import annotations

from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hierax.nn.mlp import activation

Inputs = Float[Array, "... input"]
Outputs = Float[Array, "... output"]


class Positive(linen.Module):
    """Positive outputs, ``typical``·exp(network), which are about ``typical`` before any training.

    Examples
    --------
    >>> import jax
    >>> net = hx.nn.Positive(hx.nn.MLP(), typical=2.0)
    >>> bool((net.apply(net.init(jax.random.key(0), jnp.ones(1)), jnp.ones(1)) > 0).all())
    True
    """

    network: Any
    typical: float = 1.0

    def __call__(self, x: Inputs) -> Outputs:
        """Return positive outputs."""
        return self.typical * jnp.exp(self.network(x))


class Bounded(linen.Module):
    """Outputs between ``lower`` and ``upper``, which are about half way before any training.

    Examples
    --------
    >>> import jax
    >>> net = hx.nn.Bounded(hx.nn.MLP(), upper=3.0)
    >>> bool((net.apply(net.init(jax.random.key(0), jnp.ones(1)), jnp.ones(1)) < 3).all())
    True
    """

    network: Any
    lower: float = 0.0
    upper: float = 1.0

    def __call__(self, x: Inputs) -> Outputs:
        """Return bounded outputs."""
        return self.lower + (self.upper - self.lower) * jax.nn.sigmoid(self.network(x))


class ZeroAtZero(linen.Module):
    """A network minus its value at ``inputs`` = 0, so that it is zero there, whatever the other inputs are.

    Examples
    --------
    >>> import jax
    >>> net = hx.nn.ZeroAtZero(hx.nn.MLP())
    >>> net.apply(net.init(jax.random.key(0), jnp.ones(1)), jnp.zeros(1)).tolist()
    [0.0]
    """

    network: Any
    inputs: tuple[int, ...] = (0,)

    def __call__(self, x: Inputs) -> Outputs:
        """Return the difference."""
        keep = np.ones(x.shape[-1])
        keep[list(self.inputs)] = 0.0
        return self.network(x) - self.network(x * keep)


class _Saturation(linen.Module):
    """Base of heads whose effect is proportional to s = c/(half + c), where c is their first input."""

    network: Any
    half: float = 1.0
    typical: float = 1.0
    skip: float = 0.3

    def saturation(self, c: Array) -> Array:
        """Return s, whose ``half`` is learned."""
        half = self.half * jnp.exp(self.param("log_half", linen.initializers.zeros, (1,)))
        return c / (half + c)


class Saturating(_Saturation):
    """An effect of the first input that is zero at zero, positive and levels off; the others say how large it is.

    The effect is typical·s·exp(network(s, z) + b·z) with s = c/(half + c), where c is the first input (a concentration,
    0 or more) and z are the others (random effects, say). The network sees s, not c, so that the effect has a limit
    where c is large. The linear term b·z extrapolates to values of z that were not seen in training. ``half`` and b are
    learned.

    Parameters
    ----------
    network : flax module
        Network of (s, z) with one output.
    half : float
        The concentration at which s is 1/2 before any training; its order of magnitude is enough.
    typical : float
        The limit of the effect before any training.
    skip : float
        Absolute value of the entries of b before any training; their signs are random. It should not be 0, because a
        network that ignores a random effect at the start may go on ignoring it.

    Examples
    --------
    >>> import jax
    >>> net = hx.nn.Saturating(hx.nn.MLP(), half=2.0)
    >>> net.apply(net.init(jax.random.key(0), jnp.ones(2)), jnp.ones(2)).shape
    (1,)
    """

    @linen.compact
    def __call__(self, x: Inputs) -> Outputs:
        """Return the effect, (..., 1)."""
        c, z = x[..., :1], x[..., 1:]
        s = self.saturation(c)
        log_size = self.network(jnp.concatenate([s, z], axis=-1))
        if z.shape[-1]:
            log_size = log_size + linen.Dense(
                log_size.shape[-1], use_bias=False, kernel_init=_either_sign(self.skip), name="skip"
            )(z)
        return self.typical * s * jnp.exp(log_size)


class LogLinear(_Saturation):
    """An effect of the first input, as :class:`Saturating`, whose logarithm is linear in all others.

    The effect is typical·s·exp(a(s) + Σₖ bₖ(s)·zₖ) with s = c/(half + c). The network sees the concentration only. Its
    outputs say how large the effect is there, and how much each z (a random effect, say) changes it: like principal
    components of the log effect, as functions of c. For an extreme z the effect stays plausible, whereas a network that
    has z among its inputs may return anything.

    Parameters
    ----------
    network : flax module
        Network of s, with 1 + k outputs for k other inputs.
    half, typical, skip
        As for :class:`Saturating`; ``skip`` is the absolute value of the loadings bₖ before any training.

    Examples
    --------
    >>> import jax
    >>> net = hx.nn.LogLinear(hx.nn.MLP(outputs=2), half=2.0)
    >>> net.apply(net.init(jax.random.key(0), jnp.ones(2)), jnp.ones(2)).shape
    (1,)
    """

    @linen.compact
    def __call__(self, x: Inputs) -> Outputs:
        """Return the effect, (..., 1)."""
        c, z = x[..., :1], x[..., 1:]
        s = self.saturation(c)
        out = self.network(s)
        if out.shape[-1] != 1 + z.shape[-1]:
            raise ValueError(
                f"The network of LogLinear has {out.shape[-1]} outputs, but it needs {1 + z.shape[-1]}: the log of the "
                f"effect's size, and a loading of each of the {z.shape[-1]} inputs beside the first."
            )
        log_size = out[..., :1]
        if z.shape[-1]:
            skip = self.param("skip", _either_sign(self.skip), (z.shape[-1],))
            log_size = log_size + jnp.sum((out[..., 1:] + skip) * z, axis=-1, keepdims=True)
        return self.typical * s * jnp.exp(log_size)


def _either_sign(size: float) -> Any:
    def initial(key: Any, shape: tuple[int, ...], dtype: Any = float) -> Array:
        return size * jax.random.rademacher(key, shape).astype(dtype)

    return initial


class Monotone(linen.Module):
    """A network that never falls in ``increasing`` inputs, never rises in ``decreasing`` ones, and is free in others.

    Weights on the paths from monotone inputs to outputs are squares of parameters. Half of the units of a layer use the
    activation function turned by 180° around 0 (Runje & Shankaranarayana 2023). With "softplus", a curve that is convex
    in one place and concave in another still needs two layers.

    Parameters
    ----------
    increasing, decreasing : tuple of int
        Positions of the inputs.
    outputs, width, depth, activation, initial
        As for :class:`MLP`.

    Examples
    --------
    >>> import jax
    >>> net = hx.nn.Monotone(increasing=(0,))
    >>> weights = net.init(jax.random.key(0), jnp.zeros(1))
    >>> bool((net.apply(weights, jnp.ones(1)) > net.apply(weights, jnp.zeros(1))).all())
    True
    """

    increasing: tuple[int, ...] = (0,)
    decreasing: tuple[int, ...] = ()
    outputs: int = 1
    width: int = 8
    depth: int = 1
    activation: str = "tanh"
    initial: float = 0.1

    @linen.compact
    def __call__(self, x: Inputs) -> Outputs:
        """Return the outputs."""
        size = x.shape[-1]
        _refuse_positions(self.increasing + self.decreasing, size)
        sign = np.zeros(size)
        sign[list(self.increasing)], sign[list(self.decreasing)] = 1.0, -1.0
        act, flip = activation(self.activation), jnp.where(jnp.arange(self.width) % 2, -1.0, 1.0)
        for index in range(self.depth):
            kernel = self.param(f"kernel_{index}", linen.initializers.lecun_normal(), (x.shape[-1], self.width))
            bias = self.param(f"bias_{index}", linen.initializers.normal(1.0), (self.width,))
            if index:
                kernel = _positive(kernel)
            else:
                kernel = jnp.where(sign[:, None] == 0, kernel, sign[:, None] * _positive(kernel))
            x = flip * act(flip * (x @ kernel + bias))
        start = np.sqrt(self.initial / self.width)
        last = self.param("last", linen.initializers.normal(start), (self.width, self.outputs))
        return x @ last**2 + self.param("last_bias", linen.initializers.zeros, (self.outputs,))


def _positive(kernel: Array) -> Array:
    """Return the squares of the entries, scaled so that at the start they are of the same size as the entries."""
    return kernel**2 * np.sqrt(kernel.shape[0])


def _refuse_positions(positions: tuple[int, ...], size: int) -> None:
    wrong = [k for k in positions if not 0 <= k < size]
    if wrong or len(set(positions)) < len(positions):
        raise ValueError(
            f"Monotone names the inputs {positions}, but the network has inputs 0 to {size - 1}, each of which can be "
            f"named once, as increasing or as decreasing."
        )
