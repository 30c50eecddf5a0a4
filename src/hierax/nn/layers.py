"""The layers of a flow: maps of R^d to itself with exact inverses and log determinants."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as linen
import jax.numpy as jnp
from jaxtyping import Array, Float

from hierax.nn import spline
from hierax.nn.masked import Autoregressive, Conditioner

# Limits of the absolute values of a coordinate's log scale, and of its skew and log tail. The scales of a stack's
# layers multiply, and even a point far from all data should not be moved to an extreme value; nor should one layer make
# tails much heavier or lighter.
_LOG_SCALE_LIMIT, _BEND_LIMIT = 3.0, 0.5
# How many slopes are multiplied before the logarithm of their product is taken: so few that it is far from overflow.
_SLOPES_PER_LOGARITHM = 8

Mapped = tuple[Float[Array, "... size"], Float[Array, "..."]]


def _limited(raw: Array, limit: float) -> Array:
    """Return a number between -limit and limit; near 0 it is almost the same as ``raw``."""
    return limit * jnp.tanh(raw / limit)


def sinh_arcsinh(skew: Array, log_tail: Array, z: Array) -> tuple[Array, Array, Array]:
    """Return sinh(skew + e^log_tail·arcsinh z), and its slope in two parts: a logarithm and a factor.

    The map is the identity where ``skew`` and ``log_tail`` are 0. See Jones & Pewsey (2009).
    """
    # The map and its slope share one exponential and one logarithm: library functions would take three times as many.
    root, sign = jnp.sqrt(1.0 + z**2), jnp.where(z < 0, -1.0, 1.0)
    inner = skew + jnp.exp(log_tail) * sign * jnp.log(sign * z + root)
    up = jnp.exp(inner)
    down = 1.0 / up
    return 0.5 * (up - down), log_tail, 0.5 * (up + down) / root


class _Moved(NamedTuple):
    """Mapped coordinates, and slopes in two parts: their logarithms, and factors whose logarithms are still to take."""

    value: Array
    log_slope: Array
    factor: Array | None


class _Elementwise:
    """A map of one coordinate, given its parameters: an affine map, after a sinh-arcsinh map or a spline if wanted."""

    def __init__(self, kind: str, bins: int, bound: float):
        self.kind, self.bins, self.bound = kind, bins, bound

    @property
    def numbers(self) -> int:
        return 2 + {"affine": 0, "sinh": 2, "spline": spline.parameters(self.bins)}[self.kind]

    def forward(self, raw: Array, z: Array) -> _Moved:
        shift, log_scale, bend = self._settings(raw)
        bent, log_slope, factor = self._bend(bend, z)
        return _Moved(bent * jnp.exp(log_scale) + shift, log_scale + log_slope, factor)

    def inverse(self, raw: Array, x: Array) -> _Moved:
        shift, log_scale, bend = self._settings(raw)
        z, log_slope, factor = self._straighten(bend, (x - shift) * jnp.exp(-log_scale))
        return _Moved(z, log_slope - log_scale, factor)

    def _settings(self, raw: Array) -> tuple[Array, Array, list[Array]]:
        """Return shift, log scale, and the parameters of the sinh-arcsinh map or spline (the bend)."""
        bend = [_limited(raw[..., 2 + k], _BEND_LIMIT) for k in range(2)] if self.kind == "sinh" else [raw[..., 2:]]
        return raw[..., 0], _limited(raw[..., 1], _LOG_SCALE_LIMIT), bend

    def _bend(self, bend: list[Array], z: Array) -> _Moved:
        if self.kind == "spline":
            return _Moved(*spline.forward(spline.knots(bend[0], self.bound), z), None)
        if self.kind == "sinh":
            return _Moved(*sinh_arcsinh(bend[0], bend[1], z))
        return _Moved(z, jnp.zeros_like(z), None)

    def _straighten(self, bend: list[Array], x: Array) -> _Moved:
        if self.kind == "spline":
            return _Moved(*spline.inverse(spline.knots(bend[0], self.bound), x), None)
        if self.kind == "sinh":
            # The inverse is a map of the same family.
            skew, log_tail = bend
            return _Moved(*sinh_arcsinh(-skew * jnp.exp(-log_tail), -log_tail, x))
        return _Moved(x, jnp.zeros_like(x), None)


def _log_det(moved: Sequence[_Moved]) -> Array:
    """Return the log determinant of coordinates that are moved one by one."""
    total = functools.reduce(jnp.add, [one.log_slope for one in moved])
    factors = [one.factor for one in moved if one.factor is not None]
    # One logarithm of a product takes less time than one logarithm per coordinate.
    for few in (factors[k : k + _SLOPES_PER_LOGARITHM] for k in range(0, len(factors), _SLOPES_PER_LOGARITHM)):
        total = total + jnp.log(functools.reduce(jnp.multiply, few))
    return total


def _split(moved: _Moved) -> list[_Moved]:
    """Return the coordinates, the last axis of each array, one by one."""
    factor = moved.factor
    return [
        _Moved(moved.value[..., k], moved.log_slope[..., k], None if factor is None else factor[..., k])
        for k in range(moved.value.shape[-1])
    ]


class _Layer(linen.Module):
    """Base of layers: the number of coordinates, the map of a coordinate, and the size of the network."""

    size: int
    kind: str
    width: int
    depth: int
    bins: int
    bound: float

    @property
    def element(self) -> _Elementwise:
        return _Elementwise(self.kind, self.bins, self.bound)


class AutoregressiveLayer(_Layer):
    """A layer that maps coordinate k with parameters that a network makes of the base coordinates before it.

    Forwards this takes one pass of the network. The inverse takes one pass too, but one coordinate after the other.
    """

    @linen.compact
    def __call__(self, x: Array, context: Array | None = None, *, inverse: bool = False) -> Mapped:
        """Return the mapped points and log determinants."""
        element = self.element
        network = Autoregressive(self.size, element.numbers, self.width, self.depth)
        if not inverse:
            moved = element.forward(network(x, context), x)
            return moved.value, _log_det(_split(moved))
        seen = []

        def coordinate(k: int, raw: Array) -> Array:
            seen.append(element.inverse(raw, x[..., k]))
            return seen[-1].value

        z = network.unrolled(coordinate, context)
        return z, _log_det(seen)


class CouplingLayer(_Layer):
    """A layer that maps the second half of the coordinates as the first half says, in one pass either way."""

    @linen.compact
    def __call__(self, x: Array, context: Array | None = None, *, inverse: bool = False) -> Mapped:
        """Return the mapped points and log determinants."""
        element, kept = self.element, self.size // 2
        # With one coordinate the first half is empty, and the network gets a constant as its input.
        known = x[..., :kept] if kept else jnp.ones_like(x[..., :1])
        raw = Conditioner(self.size - kept, element.numbers, self.width, self.depth)(known, context)
        moved = (element.inverse if inverse else element.forward)(raw, x[..., kept:])
        return jnp.concatenate([x[..., :kept], moved.value], axis=-1), _log_det(_split(moved))


class LinearLayer(linen.Module):
    """A layer that mixes coordinates by a matrix L·U with positive diagonal; the identity before any training."""

    size: int

    @linen.compact
    def __call__(self, x: Array, context: Array | None = None, *, inverse: bool = False) -> Mapped:
        """Return the mapped points and log determinants."""
        zeros, shape = linen.initializers.zeros, (self.size, self.size)
        lower = jnp.tril(self.param("lower", zeros, shape), -1) + jnp.eye(self.size)
        log_diagonal = _limited(self.param("log_diagonal", zeros, (self.size,)), _LOG_SCALE_LIMIT)
        upper = jnp.triu(self.param("upper", zeros, shape), 1) + jnp.diag(jnp.exp(log_diagonal))
        matrix = jnp.linalg.inv(lower @ upper) if inverse else lower @ upper
        log_det = jnp.full(x.shape[:-1], log_diagonal.sum())
        return x @ matrix.T, -log_det if inverse else log_det
