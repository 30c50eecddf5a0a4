"""The amount that one dose, or a steady state of doses, leaves in one compartment with first-order loss.

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
    """When doses act, relative to the times of the records: everything about time that the responses share.

    Attributes
    ----------
    elapsed : array
        Time since the dose arrived. For a periodic steady state: since the latest arrival among this dose and the
        endless series of doses before it. For a constant infusion: since the record at which it ends. 0 where the dose
        does not act.
    running, after : array
        How long the infusion has run, and how long ago it ended; they add up to ``elapsed``.
    count : array
        How many infusions of a periodic steady state are still running.
    tail : array
        Time since the end of the latest infusion of a periodic steady state that has ended.
    """

    elapsed: Float[Array, "subject time dose"]
    running: Float[Array, "subject time dose"]
    after: Float[Array, "subject time dose"]
    count: Float[Array, "subject time dose"]
    tail: Float[Array, "subject time dose"]


def time_doses(
    dose: Inputs,
    times: Float[Array, "*#time_dose"],
    acts: Bool[Array, "*#time_dose"],
    now: Array | None = None,
) -> Timing:
    """Return the timing of doses (arrays (subject, 1, dose)) at the records' times.

    ``now`` is the time that decides which doses of a steady state have arrived and which of its infusions have ended;
    by default it is the record's time. A solver gives a time inside its step, so that it is the same for both ends.
    """
    elapsed = times - dose.arrival
    seen = elapsed if now is None else jax.lax.stop_gradient(now - dose.arrival)
    if dose.steady_states:
        before = jax.lax.stop_gradient(jnp.minimum(jnp.floor(seen / dose.interval), 0.0)) * dose.interval
        phase, seen = elapsed - before, seen - before
        elapsed = jnp.where(dose.periodic, phase, jnp.where(dose.constant, times - dose.time, elapsed))
    # Where the dose does not act, no exponential may overflow: its derivative would be NaN.
    elapsed = jnp.where(acts, elapsed, 0.0)
    # ``jnp.minimum`` would do, but its derivative at a tie is the mean of the derivatives of both sides.
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
    """Return the amount in the dosed compartment, whose rate constant of loss is ``a``."""
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
    """Return the amount in a compartment of loss ``a`` that the dosed compartment feeds with rate constant ``ka``."""
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
    """Return the amount in a mode of loss ``a`` after doses into a state of the disposition, or the depot (-1)."""
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
    """Return the sum of ``exp_difference(a, b, t + j·interval)`` over j = 0, 1, 2, ..., free of cancellation."""
    across = jnp.exp(-a * t) * _repeats(a, interval) * exp_difference(a, b, interval)
    return _repeats(b, interval) * (exp_difference(a, b, t) + across)
