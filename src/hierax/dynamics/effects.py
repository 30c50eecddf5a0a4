"""Effects of a concentration that saturate: Emax and Hill curves with all their derivatives, also at 0."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def emax(c: Any, emax: Any, ec50: Any) -> Array:
    """Return the Emax curve, ``emax · c / (ec50 + c)``.

    Parameters
    ----------
    c : array
        Concentration, of any shape: in a vector field, or on the record axis. A negative value, which the error of an
        ODE solver may leave in place of 0, counts as 0: no effect, and no slope.
    emax, ec50 : array
        Largest effect (of any sign), and the concentration that gives half of it (positive). They broadcast with ``c``.

    Returns
    -------
    array

    Examples
    --------
    >>> float(hx.pk.emax(3.0, emax=2.0, ec50=1.0))
    1.5
    """
    c, emax, ec50 = (jnp.asarray(value, float) for value in (c, emax, ec50))
    return _saturate(c, emax, ec50, lambda ratio: ratio)


def hill(c: Any, emax: Any, ec50: Any, gamma: Any) -> Array:
    """Return the Hill curve, ``emax · c^gamma / (ec50^gamma + c^gamma)``, with all derivatives also at ``c = 0``.

    If the formula is written out in a model, its derivatives are NaN where ``c`` is exactly 0, as it is before the
    first dose: the derivative of 0^gamma with respect to gamma is 0 · log 0. This function returns the correct values
    and derivatives of any order, in all arguments, in forward and in reverse mode.

    Parameters
    ----------
    c : array
        Concentration, of any shape: in a vector field, or on the record axis. A negative value, which the error of an
        ODE solver may leave in place of 0, counts as 0: no effect, and no slope.
    emax, ec50, gamma : array
        Largest effect (of any sign); the concentration that gives half of it, and the steepness (both positive). They
        broadcast with ``c``.

    Returns
    -------
    array

    Notes
    -----
    At ``c = 0`` the effect and all its derivatives in ``emax``, ``ec50`` and ``gamma`` are 0. Its k-th derivative in
    ``c`` from the right is that of ``emax · (c/ec50)^gamma``: 0 where ``gamma > k``, ``emax · k!/ec50^k`` where
    ``gamma = k`` exactly, and infinite where ``gamma < k`` and ``gamma`` is not a whole number. An infinite derivative
    is returned as 0, so that a concentration that is 0 whatever the parameters are (before the first dose) leads to
    derivatives of 0 and not of 0 · ∞. With ``gamma < 1`` this concerns the slope itself: at ``c = 0`` it is infinite
    and returned as 0, but at a small ``c > 0`` it is returned as it is, however large. Mixed derivatives in ``c`` and
    ``gamma`` do not exist at ``c = 0`` where ``gamma`` is a whole number; what is returned for them is finite.

    Examples
    --------
    >>> float(hx.pk.hill(3.0, emax=2.0, ec50=3.0, gamma=4.0))
    1.0
    """
    c, emax, ec50, gamma = (jnp.asarray(value, float) for value in (c, emax, ec50, gamma))
    return _saturate(c, emax, ec50, lambda ratio: _power(ratio, gamma))


def inhibition(c: Any, imax: Any, ic50: Any, gamma: Any = 1.0) -> Array:
    """Return what a concentration leaves of a rate that it inhibits, ``1 − imax · c^gamma / (ic50^gamma + c^gamma)``.

    Parameters
    ----------
    c : array
        Concentration, as for :func:`hill`.
    imax, ic50, gamma : array
        Largest inhibition, as a share between 0 and 1; the concentration that gives half of it, and the steepness.

    Returns
    -------
    array
        A factor for the rate, 1 without any drug. It has all derivatives, as :func:`hill` has.

    References
    ----------
    Dayneka, Garg & Jusko (1993), J Pharmacokinet Biopharm 21:457.

    Examples
    --------
    >>> float(hx.pk.inhibition(3.0, imax=0.5, ic50=1.0))
    0.625
    """
    return 1.0 - hill(c, imax, ic50, gamma)


def _saturate(c: Array, emax: Array, ec50: Array, power: Callable[[Array], Array]) -> Array:
    """Return emax · p / (1 + p), where p is the power of c/ec50; and 0 where c is negative."""
    above = ~(c < 0)
    c = jnp.where(above, c, 0.0)
    # Of c/ec50 and its inverse, the one that is at most 1 is raised to the power, so that nothing overflows.
    low = ~(c > ec50)
    rising = power(jnp.where(low, c, ec50) / ec50)
    falling = power(ec50 / jnp.where(low, ec50, c))
    share = jnp.where(low, rising / (1.0 + rising), 1.0 / (1.0 + falling))
    return jnp.where(above, emax * share, 0.0)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _power(x: Array, exponent: Array, logs: int = 0) -> Array:
    """Return x^exponent · (log x)^logs for x ≥ 0; 0 where x is 0 (but 0^0 = 1), and where a power is infinite."""
    x, exponent = jnp.broadcast_arrays(x, exponent)
    inside = jnp.where(x == 0, 1.0, x)
    power = inside**exponent
    # The power is infinite only for a negative exponent, which occurs only in derivatives. Where such a derivative
    # exists, the infinite power is multiplied by 0, and 0 · ∞ would be NaN.
    power = jnp.where(jnp.isinf(power), 0.0, power) * jnp.log(inside) ** logs
    return jnp.where(x == 0, jnp.where((exponent == 0) & (logs == 0), 1.0, 0.0), power)


@_power.defjvp
def _power_tangent(logs: int, primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return the value and its tangent by ``_power`` itself, so that all orders hold where x is 0 or tiny."""
    x, exponent = primals
    moved_x, moved_exponent = tangents
    # The power is multiplied by the tangent before anything else: at a tiny x the power is huge, but the tangent of a
    # decaying concentration is tiny.
    slope = exponent * (_power(x, exponent - 1.0, logs) * moved_x)
    if logs:
        slope = slope + logs * (_power(x, exponent - 1.0, logs - 1) * moved_x)
    return _power(x, exponent, logs), slope + _power(x, exponent, logs + 1) * moved_exponent
