"""Divided differences of the exponential: the kernels of linear compartment models, exact at equal rates."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# The value of y = |a - b|·t/2 below which ``exp_difference`` uses the series of sinh(y)/y in y², which needs few terms
# there, also for its derivatives. Above it the plain difference of exponentials loses at most 6·eps/(2y)⁴ = 5e-14 of
# the third derivative.
SWITCH = 0.2
# Terms of the series. The first one that is left out, 0.2^14/15!, is below rounding.
_TERMS = 7


def _coefficients(order: int) -> list[float]:
    """Return the Taylor coefficients of the derivative of this order of Σ sⁿ/(2n+1)!."""
    return [math.factorial(n + order) / math.factorial(n) / math.factorial(2 * (n + order) + 1) for n in range(_TERMS)]


def _make_series(order: int) -> Callable[[Array], Array]:
    """Return the derivative of this order of sinh(√s)/√s near 0; its own derivative is the series of the next order.

    JAX then never differentiates a polynomial: it evaluates the next one, and multiplies it by the tangent.
    """

    @jax.custom_jvp
    def series(s: Array) -> Array:
        total = jnp.zeros_like(s)
        for coefficient in reversed(_coefficients(order)):
            total = total * s + coefficient
        return total

    @series.defjvp
    def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        (s,), (tangent,) = primals, tangents
        return series(s), _series(order + 1)(s) * tangent

    return series


@functools.cache
def _series(order: int) -> Callable[[Array], Array]:
    return _make_series(order)


def exp_difference(a: Float[Array, "*#s"], b: Float[Array, "*#s"], t: Float[Array, "*#s"]) -> Float[Array, "*#s"]:
    """Return ``(exp(-b t) - exp(-a t)) / (a - b)``, and its limit ``t exp(-a t)`` at ``a = b``.

    The amount in the second of two compartments in series with rates ``a`` and ``b``, per unit of inflow ``a``.
    Symmetric in ``a`` and ``b``; value and derivatives of any order are smooth across ``a = b``.
    """
    half = 0.5 * (a - b) * t
    near = jnp.abs(half) < SWITCH
    square = jnp.where(near, half * half, 0.0)
    middle = t * jnp.exp(-0.5 * (a + b) * t) * _series(0)(square)
    # This branch must stay finite where it is not used, because a NaN would reach the derivatives.
    gap = jnp.where(near, 1.0, a - b)
    apart = (jnp.exp(-b * t) - jnp.exp(-a * t)) / gap
    return jnp.where(near, middle, apart)


def exp_integral(a: Float[Array, "*#s"], t: Float[Array, "*#s"]) -> Float[Array, "*#s"]:
    """Return ``(1 - exp(-a t)) / a``, and its limit ``t`` at ``a = 0``: what a unit inflow leaves after ``t``."""
    return exp_difference(a, jnp.zeros_like(a), t)
