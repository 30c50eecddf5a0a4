"""Monotone rational-quadratic splines with linear tails, and their inverses."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# The smallest width and height of a bin, as a share of the interval, and the smallest slope at a knot: above 0, so that
# the spline can be inverted.
_NARROWEST, _FLATTEST = 1e-3, 1e-3
# The unconstrained number that makes a slope of 1: softplus(_UNIT_SLOPE) + _FLATTEST = 1.
_UNIT_SLOPE = float(np.log(np.expm1(1.0 - _FLATTEST)))


class Knots(NamedTuple):
    """Where the knots are, (..., knot), and the slopes there."""

    x: Float[Array, "... knot"]
    y: Float[Array, "... knot"]
    slope: Float[Array, "... knot"]


def parameters(bins: int) -> int:
    """Return the number of parameters of a spline with this many bins."""
    return 3 * bins - 1


def knots(raw: Float[Array, "... number"], bound: float) -> Knots:
    """Return knots in [-bound, bound]² from unconstrained numbers; numbers that are all 0 make the identity."""
    bins = (raw.shape[-1] + 1) // 3
    inner = jax.nn.softplus(raw[..., 2 * bins :] + _UNIT_SLOPE) + _FLATTEST
    ones = jnp.ones((*raw.shape[:-1], 1))
    slope = jnp.concatenate([ones, inner, ones], axis=-1)
    return Knots(_edges(raw[..., :bins], bound), _edges(raw[..., bins : 2 * bins], bound), slope)


def _edges(raw: Array, bound: float) -> Array:
    bins = raw.shape[-1]
    shares = _NARROWEST + (1 - _NARROWEST * bins) * jax.nn.softmax(raw, axis=-1)
    inner = jnp.cumsum(shares, axis=-1)[..., :-1]
    zero = jnp.zeros((*raw.shape[:-1], 1))
    return bound * (2 * jnp.concatenate([zero, inner, zero + 1], axis=-1) - 1)


class _Bin(NamedTuple):
    """The bin that each point is in: left ends, sizes, mean slope, and slopes at both ends."""

    x: Array
    y: Array
    width: Array
    height: Array
    mean: Array
    left: Array
    right: Array


def _bin(at: Knots, edges: Array, point: Array) -> _Bin:
    index = jnp.clip(jnp.sum(edges[..., 1:-1] <= point[..., None], axis=-1), 0, edges.shape[-1] - 2)[..., None]

    def pick(values: Array, offset: int = 0) -> Array:
        full = jnp.broadcast_to(values, (*point.shape, values.shape[-1]))
        return jnp.take_along_axis(full, index + offset, axis=-1)[..., 0]

    x, y = pick(at.x), pick(at.y)
    width, height = pick(at.x, 1) - x, pick(at.y, 1) - y
    return _Bin(x, y, width, height, height / width, pick(at.slope), pick(at.slope, 1))


def forward(at: Knots, x: Array) -> tuple[Array, Array]:
    """Return values and log slopes of the spline, which is the identity outside the knots."""
    inside = (x > at.x[..., 0]) & (x < at.x[..., -1])
    # Points outside are moved inside, so that derivatives there, which are not used, are finite.
    safe = jnp.where(inside, x, 0.5 * (at.x[..., 0] + at.x[..., -1]))
    here = _bin(at, at.x, safe)
    part = (safe - here.x) / here.width
    rest = part * (1 - part)
    below = here.mean + (here.left + here.right - 2 * here.mean) * rest
    value = here.y + here.height * (here.mean * part**2 + here.left * rest) / below
    return jnp.where(inside, value, x), jnp.where(inside, _log_slope(here, part, below), 0.0)


def inverse(at: Knots, y: Array) -> tuple[Array, Array]:
    """Return the points with these values, and log slopes of the inverse there."""
    inside = (y > at.y[..., 0]) & (y < at.y[..., -1])
    safe = jnp.where(inside, y, 0.5 * (at.y[..., 0] + at.y[..., -1]))
    here = _bin(at, at.y, safe)
    bend = here.left + here.right - 2 * here.mean
    above = safe - here.y
    # The root of the quadratic a p² + b p + c in [0, 1], by the formula in which no digits cancel.
    a = here.height * (here.mean - here.left) + above * bend
    b = here.height * here.left - above * bend
    c = -here.mean * above
    part = 2 * c / (-b - jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 1e-30)))
    below = here.mean + bend * part * (1 - part)
    value = here.x + part * here.width
    return jnp.where(inside, value, y), jnp.where(inside, -_log_slope(here, part, below), 0.0)


def _log_slope(here: _Bin, part: Array, below: Array) -> Array:
    top = here.right * part**2 + 2 * here.mean * part * (1 - part) + here.left * (1 - part) ** 2
    return 2 * jnp.log(here.mean) + jnp.log(top) - 2 * jnp.log(below)
