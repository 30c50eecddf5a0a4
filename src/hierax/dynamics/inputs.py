"""Doses as the inputs that they are: when they arrive, how much, and how fast."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hierax.data.events import MODELLED_DURATION, MODELLED_RATE
from hierax.data.population import Population
from hierax.dynamics.arguments import individual, per_dose


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Doses with lag, bioavailability, modelled rates and durations applied; arrays are (subject, dose).

    Attributes
    ----------
    time, arrival : array
        Time of the dose record, and one lag later.
    amount, rate, duration : array
        Amount that becomes available; rate and duration of an infusion, both 0 for a bolus.
    interval : array
        Period of a steady state, 1 where there is none.
    periodic, constant : bool array
        Steady states of repeated doses, and of a constant infusion.
    compartment, record, segment, mask : array
        As in :class:`~hierax.data.events.Events`.
    infusions, steady_states : bool
        Whether there are any.
    slots : int
        How many doses of a periodic steady state may still be on their way, or run, at its record.
    """

    time: Float[Array, "subject dose"]
    arrival: Float[Array, "subject dose"]
    amount: Float[Array, "subject dose"]
    rate: Float[Array, "subject dose"]
    duration: Float[Array, "subject dose"]
    interval: Float[Array, "subject dose"]
    periodic: Bool[Array, "subject dose"]
    constant: Bool[Array, "subject dose"]
    compartment: Int[Array, "subject dose"]
    record: Int[Array, "subject dose"]
    segment: Int[Array, "subject dose"]
    mask: Bool[Array, "subject dose"]
    infusions: bool
    steady_states: bool
    slots: int


def resolve(
    pop: Population, F: Any, lag: Any, rate: Any, duration: Any, zero_order: Any = None, route: int = 1
) -> Inputs:
    """Apply the dose parameters to the doses of a population.

    Parameters
    ----------
    F, lag, rate, duration : array, mapping, or None
        Bioavailability, lag time, and the modelled rate (RATE -1) and duration (RATE -2) of doses; from the dose's
        record. A mapping gives them by compartment.
    zero_order : array, optional
        Duration of a zero-order absorption: every bolus into compartment ``route`` becomes an infusion over it.

    Raises
    ------
    ValueError
        Doses whose rate or duration is a parameter that is not given, or one given that no dose has.
    """
    events = pop.events
    _check_modelled(events.modelled_kinds, rate, duration)
    mask, steady = jnp.asarray(events.mask), jnp.asarray(events.steady)
    given, interval = jnp.asarray(events.amount), jnp.asarray(events.interval)
    available = given if F is None else given * per_dose(pop, "F", F, 1.0)
    available = jnp.where(mask, available, 0.0)
    speed, length = _speed(pop, available, rate, duration, zero_order, route)
    time = jnp.asarray(events.time)
    arrival = time if lag is None else time + per_dose(pop, "lag", lag, 0.0)
    constant = mask & (steady > 0) & (interval <= 0) & (given == 0)
    periodic = mask & (steady > 0) & ~constant
    infusions = events.infusions or zero_order is not None
    moves = lag is not None or (infusions and (F is not None or zero_order is not None or events.modelled_kinds != ()))
    return Inputs(
        time=time,
        arrival=arrival,
        amount=available,
        rate=speed,
        duration=length,
        interval=jnp.where(periodic & (interval > 0), interval, 1.0),
        periodic=periodic,
        constant=constant,
        compartment=jnp.asarray(events.compartment),
        record=jnp.asarray(events.record),
        segment=jnp.asarray(events.segment),
        mask=mask,
        infusions=infusions,
        steady_states=events.steady_states,
        slots=max(1, events.overlap) + 2 * moves if events.steady_states else 1,
    )


def _speed(
    pop: Population, amount: Array, rate: Any, duration: Any, zero_order: Any, route: int
) -> tuple[Array, Array]:
    """Return rate and duration of every dose; 0 and 0 for a bolus.

    Where the rate is known (RATE > 0 or -1), bioavailability changes the duration; where the duration is, the rate.
    """
    events = pop.events
    speed, modelled = jnp.asarray(events.rate), jnp.asarray(events.modelled)
    length = jnp.zeros_like(speed)
    timed = jnp.zeros(speed.shape, bool)
    if MODELLED_RATE in events.modelled_kinds:
        speed = jnp.where(modelled == MODELLED_RATE, per_dose(pop, "rate", rate, 1.0), speed)
    if MODELLED_DURATION in events.modelled_kinds:
        timed = modelled == MODELLED_DURATION
        length = jnp.where(timed, per_dose(pop, "duration", duration, 1.0), length)
    if zero_order is not None:
        absorbed = (speed == 0) & (modelled == 0) & (jnp.asarray(events.compartment) == route) & events.mask
        length = jnp.where(absorbed, individual(pop, "Tk0", zero_order), length)
        timed = timed | absorbed
    speed = jnp.where(timed, amount / jnp.where(timed, length, 1.0), speed)
    infused = speed > 0
    length = jnp.where(timed, length, jnp.where(infused, amount / jnp.where(infused, speed, 1.0), 0.0))
    return jnp.where(events.mask, speed, 0.0), length


def _check_modelled(kinds: tuple[int, ...], rate: Any, duration: Any) -> None:
    for kind, name, value in ((MODELLED_RATE, "rate", rate), (MODELLED_DURATION, "duration", duration)):
        if kind in kinds and value is None:
            raise ValueError(
                f"Some doses have RATE -{kind}, so their {name} is a parameter of the model, and none is given. "
                f"Pass {name}=, (subject, 1) or (subject, time)."
            )
        if kind not in kinds and value is not None:
            raise ValueError(
                f"{name}= is given, but no dose has RATE -{kind}, so it would do nothing. Set RATE={-kind} on the dose "
                f"records" + (", or use Tk0= for a zero-order absorption." if kind == MODELLED_DURATION else ".")
            )
