"""The layers of a flow: maps of R^d to itself with exact inverses and log determinants."""

from __future__ import annotations

import flax.linen as linen
import jax.numpy as jnp
from jaxtyping import Array, Float

from hierax.nn import spline
from hierax.nn.masked import Autoregressive, Conditioner

# Scales of an affine layer stay between the inverse of this power of e and the power itself: a stack multiplies them,
# and what it does to a point far from all data should stay within reason.
_STRETCH = 3.0

Mapped = tuple[Float[Array, "... size"], Float[Array, "..."]]


def _stretch(raw: Array) -> Array:
    return _STRETCH * jnp.tanh(raw / _STRETCH)


def _limited(raw: Array) -> Array:
    """Return a number between -1/2 and 1/2, so that no layer makes tails much heavier or lighter."""
    return 0.5 * jnp.tanh(2.0 * raw)


def sinh_arcsinh(skew: Array, log_tail: Array, z: Array) -> tuple[Array, Array]:
    """Return sinh(skew + e^log_tail·arcsinh z) and log slopes: Jones & Pewsey (2009); the identity at 0, 0."""
    # One exponential and two logarithms in all: library functions of the same would take three times as many.
    root, sign = jnp.sqrt(1.0 + z**2), jnp.where(z < 0, -1.0, 1.0)
    inner = skew + jnp.exp(log_tail) * sign * jnp.log(sign * z + root)
    up = jnp.exp(inner)
    down = 1.0 / up
    return 0.5 * (up - down), log_tail + jnp.log(0.5 * (up + down) / root)


class _Elementwise:
    """One coordinate at a time, given its numbers: affine, a sinh-arcsinh map, or a spline."""

    def __init__(self, kind: str, bins: int, bound: float):
        self.kind, self.bins, self.bound = kind, bins, bound

    @property
    def numbers(self) -> int:
        return 2 + {"affine": 0, "sinh": 2, "spline": spline.parameters(self.bins)}[self.kind]

    def forward(self, raw: Array, z: Array) -> tuple[Array, Array]:
        shift, log_scale = raw[..., 0], _stretch(raw[..., 1])
        z, log_slope = self._bend(raw[..., 2:], z)
        return z * jnp.exp(log_scale) + shift, log_scale + log_slope

    def inverse(self, raw: Array, x: Array) -> tuple[Array, Array]:
        shift, log_scale = raw[..., 0], _stretch(raw[..., 1])
        z = (x - shift) * jnp.exp(-log_scale)
        z, log_slope = self._straighten(raw[..., 2:], z)
        return z, log_slope - log_scale

    def _bend(self, raw: Array, z: Array) -> tuple[Array, Array]:
        if self.kind == "spline":
            return spline.forward(spline.knots(raw, self.bound), z)
        if self.kind == "sinh":
            return sinh_arcsinh(_limited(raw[..., 0]), _limited(raw[..., 1]), z)
        return z, jnp.zeros_like(z)

    def _straighten(self, raw: Array, x: Array) -> tuple[Array, Array]:
        if self.kind == "spline":
            return spline.inverse(spline.knots(raw, self.bound), x)
        if self.kind == "sinh":
            # The inverse is a map of the same family.
            skew, log_tail = _limited(raw[..., 0]), _limited(raw[..., 1])
            return sinh_arcsinh(-skew * jnp.exp(-log_tail), -log_tail, x)
        return x, jnp.zeros_like(x)


class _Layer(linen.Module):
    """Its size, what it does to a coordinate, and the shape of its network."""

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
    """Coordinate k is mapped as the base coordinates before it say.

    One pass of the network forwards; backwards one as well, but a coordinate after the other.
    """

    @linen.compact
    def __call__(self, x: Array, context: Array | None = None, *, inverse: bool = False) -> Mapped:
        """Return the mapped points and log determinants."""
        element = self.element
        network = Autoregressive(self.size, element.numbers, self.width, self.depth)
        if not inverse:
            out, slopes = element.forward(network(x, context), x)
            return out, slopes.sum(-1)
        slopes = []

        def coordinate(k: int, raw: Array) -> Array:
            value, slope = element.inverse(raw, x[..., k])
            slopes.append(slope)
            return value

        z = network.unrolled(coordinate, x.shape[:-1], context)
        return z, sum(slopes[1:], slopes[0])


class CouplingLayer(_Layer):
    """The second half of the coordinates is mapped as the first half says: one pass either way."""

    @linen.compact
    def __call__(self, x: Array, context: Array | None = None, *, inverse: bool = False) -> Mapped:
        """Return the mapped points and log determinants."""
        element, kept = self.element, self.size // 2
        # With one coordinate nothing is kept, and a constant stands for it.
        known = x[..., :kept] if kept else jnp.ones_like(x[..., :1])
        raw = Conditioner(self.size - kept, element.numbers, self.width, self.depth)(known, context)
        out, slopes = (element.inverse if inverse else element.forward)(raw, x[..., kept:])
        return jnp.concatenate([x[..., :kept], out], axis=-1), slopes.sum(-1)


class LinearLayer(linen.Module):
    """A matrix L·U with a positive diagonal: mixes the coordinates, the identity before any training."""

    size: int

    @linen.compact
    def __call__(self, x: Array, context: Array | None = None, *, inverse: bool = False) -> Mapped:
        """Return the mapped points and log determinants."""
        zeros, shape = linen.initializers.zeros, (self.size, self.size)
        lower = jnp.tril(self.param("lower", zeros, shape), -1) + jnp.eye(self.size)
        log_diagonal = _stretch(self.param("log_diagonal", zeros, (self.size,)))
        upper = jnp.triu(self.param("upper", zeros, shape), 1) + jnp.diag(jnp.exp(log_diagonal))
        matrix = jnp.linalg.inv(lower @ upper) if inverse else lower @ upper
        log_det = jnp.full(x.shape[:-1], log_diagonal.sum())
        return x @ matrix.T, -log_det if inverse else log_det
