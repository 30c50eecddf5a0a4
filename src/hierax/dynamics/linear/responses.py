"""What one dose, or a steady state of doses, leaves in one compartment of first-order loss.

Each function takes a rate constant of loss ``a`` (and one of absorption ``ka``) that broadcasts against the timing of
the doses. A disposition of several compartments is a sum of such compartments, one for each of its modes.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hierax.dynamics.doses.inputs import Inputs
from hierax.dynamics.linear.divided_differences import exp_difference, exp_integral


class Timing(NamedTuple):
    """When doses act, seen from the records: everything about time that responses share.

    Attributes
    ----------
    elapsed : array
        Time since arrival; for a periodic steady state, since the latest arrival of the doses that go on for ever
        until this one; for a constant infusion, since the record that ends it. 0 where the dose does not act.
    running, after : array
        How much of ``elapsed`` the infusion ran, and how long ago it ended.
    count : array
        How many infusions of a periodic steady state still run.
    tail : array
        Time since the end of the latest one that has ended.
    """

    elapsed: Float[Array, "subject time dose"]
    running: Float[Array, "subject time dose"]
    after: Float[Array, "subject time dose"]
    count: Float[Array, "subject time dose"]
    tail: Float[Array, "subject time dose"]


def time_doses(
    dose: Inputs,
    times: Float[Array, "subject time dose"],
    acts: Bool[Array, "subject time dose"],
    now: Array | None = None,
) -> Timing:
    """Return the timing of doses (arrays (subject, 1, dose)) at the records' times.

    ``now``: the time that decides which of a steady state's doses have arrived and ended, where it is not the records'
    own: a solver's step has its two ends on one side of every event.
    """
    elapsed = times - dose.arrival
    seen = elapsed if now is None else jax.lax.stop_gradient(now - dose.arrival)
    if dose.steady_states:
        before = jax.lax.stop_gradient(jnp.minimum(jnp.floor(seen / dose.interval), 0.0)) * dose.interval
        phase, seen = elapsed - before, seen - before
        elapsed = jnp.where(dose.periodic, phase, jnp.where(dose.constant, times - dose.time, elapsed))
    # Where the dose does not act, no exponential may overflow: its derivative would be NaN.
    elapsed = jnp.where(acts, elapsed, 0.0)
    # Not the minimum of the two, whose derivative at a tie is the mean of both sides.
    running = jnp.where(elapsed < dose.duration, elapsed, dose.duration)
    if not (dose.steady_states and dose.infusions):
        zero = jnp.zeros_like(elapsed)
        return Timing(elapsed, running, elapsed - running, zero, zero)
    at = elapsed if now is None else jnp.where(acts, seen, 0.0)
    left = jax.lax.stop_gradient((dose.duration - at) / dose.interval)
    count = jnp.where(dose.periodic, jnp.maximum(jnp.ceil(left), 0.0), 0.0)
    tail = jnp.where(dose.periodic, elapsed + count * dose.interval - dose.duration, 0.0)
    return Timing(elapsed, running, elapsed - running, count, tail)


def direct(a: Array, dose: Inputs, time: Timing) -> Array:
    """Amount in the compartment that is dosed, whose loss is ``a``."""
    out = dose.amount * jnp.exp(-a * time.elapsed)
    if dose.infusions:
        infused = dose.rate * exp_integral(a, time.running) * jnp.exp(-a * time.after)
        out = jnp.where(dose.infused, infused, out)
    if not dose.steady_states:
        return out
    repeated = _repeats(a, dose.interval)
    steady = dose.amount * jnp.exp(-a * time.elapsed) * repeated
    if dose.infusions:
        ended = dose.rate * exp_integral(a, dose.duration) * jnp.exp(-a * time.tail) * repeated
        steady = jnp.where(dose.infused, ended + dose.rate * _running_sum(a, dose, time), steady)
        out = jnp.where(dose.constant, dose.rate / a * jnp.exp(-a * time.elapsed), out)
    return jnp.where(dose.periodic, steady, out)


def absorbed(ka: Array, a: Array, dose: Inputs, time: Timing) -> Array:
    """Amount in a compartment of loss ``a`` that is fed by the dosed one at the rate ``ka``."""
    out = dose.amount * ka * exp_difference(ka, a, time.elapsed)
    if dose.infusions:
        depot = dose.rate * exp_integral(ka, time.running)
        reached = dose.rate * (exp_integral(a, time.running) - exp_difference(ka, a, time.running))
        infused = reached * jnp.exp(-a * time.after) + depot * ka * exp_difference(ka, a, time.after)
        out = jnp.where(dose.infused, infused, out)
    if not dose.steady_states:
        return out
    steady = dose.amount * ka * _repeated_difference(ka, a, dose.interval, time.elapsed)
    if dose.infusions:
        depot = dose.rate * exp_integral(ka, dose.duration)
        reached = dose.rate * (exp_integral(a, dose.duration) - exp_difference(ka, a, dose.duration))
        ended = reached * jnp.exp(-a * time.tail) * _repeats(a, dose.interval)
        ended = ended + depot * ka * _repeated_difference(ka, a, dose.interval, time.tail)
        last = time.elapsed + time.count * dose.interval
        gone = _repeated_difference(ka, a, dose.interval, time.elapsed)
        gone = gone - _repeated_difference(ka, a, dose.interval, last)
        steady = jnp.where(dose.infused, ended + dose.rate * (_running_sum(a, dose, time) - gone), steady)
        plateau = dose.rate / a * jnp.exp(-a * time.elapsed) + dose.rate * exp_difference(ka, a, time.elapsed)
        out = jnp.where(dose.constant, plateau, out)
    return jnp.where(dose.periodic, steady, out)


def respond(state: int, a: Array, ka: Array | None, dose: Inputs, time: Timing) -> Array:
    """Amount in a mode of loss ``a`` after doses into a state of the disposition, or into the depot (-1)."""
    if state >= 0:
        return direct(a, dose, time)
    assert ka is not None
    return absorbed(ka, a, dose, time)


def _repeats(a: Array, interval: Array) -> Array:
    """Return the sum of exp(-a·j·interval) over j = 0, 1, 2, ..."""
    return -1.0 / jnp.expm1(-a * interval)


def _running_sum(a: Array, dose: Inputs, time: Timing) -> Array:
    """Return the sum over the running infusions of the integral of exp(-a·t) since the start of each."""
    ages = jnp.exp(-a * time.elapsed) - jnp.exp(-a * (time.elapsed + time.count * dose.interval))
    return (time.count - ages * _repeats(a, dose.interval)) / a


def _repeated_difference(a: Array, b: Array, interval: Array, t: Array) -> Array:
    """Return the sum of ``exp_difference(a, b, t + j·interval)`` over j = 0, 1, 2, ...; no difference in it cancels."""
    across = jnp.exp(-a * t) * _repeats(a, interval) * exp_difference(a, b, interval)
    return _repeats(b, interval) * (exp_difference(a, b, t) + across)
