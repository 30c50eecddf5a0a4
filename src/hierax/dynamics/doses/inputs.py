"""Doses as inputs to a system: when they arrive, how much, and how fast."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from hierax.data.events import MODELLED_DURATION, MODELLED_RATE
from hierax.data.population import Population
from hierax.dynamics.doses.arguments import compartment_number, individual, per_dose

# Where parameters move the doses of a steady state, this many more of them are followed one by one, so that their lag
# or duration may last about ten dosing intervals. With a longer one the result is NaN (``Boundaries.lost``).
EXTRA_SLOTS = 10
# Shortest modelled duration of an infusion, in the unit of TIME. A duration of 0 means a bolus, and as an infusion it
# would have an infinite rate.
_SHORTEST = 1e-12


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Doses with lag, bioavailability, modelled rates and durations applied; arrays are (subject, dose).

    Attributes
    ----------
    time, arrival : array
        Time of the dose record; and the time at which the dose arrives, which is one lag later.
    amount, rate, duration : array
        Amount that becomes available; rate and duration of an infusion, both 0 for a bolus.
    interval : array
        Dosing interval of a steady state; 1 where there is none.
    infused : bool array
        Which doses are infusions, whatever their rate.
    periodic, constant : bool array
        Which doses are steady states of repeated doses, and which of a constant infusion.
    compartment, record, segment, mask : array
        As in :class:`~hierax.data.events.Events`.
    infusions : bool
        Whether there are any infusions.
    steady_states : int
        How many steady states a subject has at most.
    slots : int
        How many doses of a periodic steady state may still be on their way, or still running, at its record.
    moves : bool
        Whether parameters move the times at which doses arrive or infusions end.
    """

    time: Float[Array, "*subject dose"]
    arrival: Float[Array, "*subject dose"]
    amount: Float[Array, "*subject dose"]
    rate: Float[Array, "*subject dose"]
    duration: Float[Array, "*subject dose"]
    interval: Float[Array, "*subject dose"]
    infused: Bool[Array, "*subject dose"]
    periodic: Bool[Array, "*subject dose"]
    constant: Bool[Array, "*subject dose"]
    compartment: Int[Array, "*subject dose"]
    record: Int[Array, "*subject dose"]
    segment: Int[Array, "*subject dose"]
    mask: Bool[Array, "*subject dose"]
    infusions: bool
    steady_states: int
    slots: int
    moves: bool = False


_STRUCTURE = ["infusions", "steady_states", "slots", "moves"]
jax.tree_util.register_dataclass(
    Inputs,
    data_fields=[field.name for field in dataclasses.fields(Inputs) if field.name not in _STRUCTURE],
    meta_fields=_STRUCTURE,
)


def resolve(
    pop: Population, F: Any, lag: Any, rate: Any, duration: Any, zero_order: Any = None, route: int = 1
) -> Inputs:
    """Apply the dose parameters to the doses of a population.

    Parameters
    ----------
    F, lag, rate, duration : array, mapping, or None
        Bioavailability, lag time, and the modelled rate (RATE -1) and duration (RATE -2) of doses, each with its value
        at the dose's record. A mapping gives them by compartment.
    zero_order : array, optional
        Duration of a zero-order absorption: every bolus into compartment ``route`` becomes an infusion over it.

    Raises
    ------
    ValueError
        If the rate or duration of doses is a parameter that is not given, or if a bioavailability, lag, rate or
        duration is known to be negative.

    Notes
    -----
    A parameter that no dose uses does nothing, so that one program serves several regimens. Inside a compiled function,
    where values are not known, a negative one makes the amount NaN, and with it all predictions after the dose. To
    give a bolus or nothing in its place would change the model silently.
    """
    events = pop.events
    for number, name, value in ((MODELLED_RATE, "rate", rate), (MODELLED_DURATION, "duration", duration)):
        _check_modelled(pop, number, name, value)
    mask, steady = jnp.asarray(events.mask), jnp.asarray(events.steady)
    given, interval = jnp.asarray(events.amount), jnp.asarray(events.interval)
    valid = mask
    if F is not None:
        share, valid = _not_negative("F", per_dose(pop, "F", F, 1.0), valid, mask)
        given_in = given * share
    else:
        given_in = given
    time = arrival = jnp.asarray(events.time)
    if lag is not None:
        late, valid = _not_negative("lag", per_dose(pop, "lag", lag, 0.0), valid, mask)
        arrival = time + late
    available = jnp.where(mask, given_in, 0.0)
    infused, speed, length, valid = _speed(pop, available, rate, duration, zero_order, route, valid)
    if valid is not mask:
        available = jnp.where(mask & ~valid, jnp.nan, available)
        speed = jnp.where(mask & infused & ~valid, jnp.nan, speed)
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
        infused=infused,
        periodic=periodic,
        constant=constant,
        compartment=jnp.asarray(events.compartment),
        record=jnp.asarray(events.record),
        segment=jnp.asarray(events.segment),
        mask=mask,
        infusions=infusions,
        steady_states=events.steady_states,
        slots=max(1, events.overlap) + EXTRA_SLOTS * moves,
        moves=bool(moves),
    )


def _not_negative(name: str, value: Array, valid: Array, where: Array, *, zero: bool = True) -> tuple[Array, Array]:
    """Return a dose parameter with 1 in place of invalid values, and which doses are still valid.

    The replacement keeps the times of doses finite; the amounts of doses that are not valid are set to NaN instead. A
    dose at the time NaN would be left out, and predictions would stay finite.

    Raises
    ------
    ValueError
        If a value is negative outside of compiled functions, where values are known.
    """
    good = (value >= 0) if zero else (value > 0)
    bad = where & ~good & ~jnp.isnan(value)
    if not isinstance(bad, Tracer) and bool(jnp.any(bad)):
        worst, at = float(jnp.min(jnp.where(bad, value, jnp.inf))), jnp.argwhere(bad)[0]
        raise ValueError(
            f"{name} is {worst:g} at a dose (row {int(at[0])}, dose {int(at[1])} of the population), and it must "
            f"{'not be negative' if zero else 'be positive'}. Compute it by a function that keeps it so, such as "
            f"{'expit' if name == 'F' else 'exp'} of a sum of effects."
        )
    return jnp.where(where & ~good, 1.0, value), valid & (good | ~where)


def _speed(
    pop: Population, amount: Array, rate: Any, duration: Any, zero_order: Any, route: int, valid: Array
) -> tuple[Array, Array, Array, Array]:
    """Return which doses are infusions, rate and duration of every dose (0 and 0 for a bolus), and which are valid.

    Where the rate is given (RATE > 0 or -1), bioavailability changes the duration; where the duration is given, it
    changes the rate.
    """
    events = pop.events
    speed, modelled = jnp.asarray(events.rate), jnp.asarray(events.modelled)
    length = jnp.zeros_like(speed)
    timed, rated = jnp.zeros(speed.shape, bool), speed > 0
    kinds = {kind for kind, _ in events.modelled_kinds}
    if MODELLED_RATE in kinds:
        own = events.mask & (modelled == MODELLED_RATE)
        rated = rated | (modelled == MODELLED_RATE)
        value, valid = _not_negative("rate", per_dose(pop, "rate", rate, 1.0), valid, own, zero=False)
        speed = jnp.where(modelled == MODELLED_RATE, value, speed)
    if MODELLED_DURATION in kinds:
        timed = modelled == MODELLED_DURATION
        value, valid = _not_negative("duration", per_dose(pop, "duration", duration, 1.0), valid, events.mask & timed)
        length = jnp.where(timed, value, length)
    if zero_order is not None:
        absorbed = ~rated & (modelled == 0) & (jnp.asarray(events.compartment) == route) & events.mask
        value = jnp.broadcast_to(individual(pop, "Tk0", zero_order), length.shape)
        value, valid = _not_negative("Tk0", value, valid, absorbed)
        length = jnp.where(absorbed, value, length)
        timed = timed | absorbed
    length = jnp.where(timed, jnp.maximum(length, _SHORTEST), 0.0)
    speed = jnp.where(timed, amount / jnp.where(timed, length, 1.0), speed)
    length = jnp.where(rated, amount / jnp.where(rated, speed, 1.0), length)
    return (timed | rated) & events.mask, jnp.where(events.mask, speed, 0.0), length, valid


def _check_modelled(pop: Population, kind: int, name: str, value: Any) -> None:
    """Refuse doses whose modelled rate or duration the model does not give."""
    needed = {compartment for known, compartment in pop.events.modelled_kinds if known == kind}
    if needed and value is None:
        raise ValueError(
            f"Some doses have RATE -{kind}, so their {name} is a parameter of the model, and none is given. "
            f"Pass {name}=, (subject, 1) or (subject, time)."
        )
    if isinstance(value, Mapping):
        lacking = needed - {compartment_number(pop, name, key) for key in value}
        if lacking:
            raise ValueError(
                f"Doses into CMT {sorted(lacking)} have RATE -{kind}, and {name}= gives none for that compartment; it "
                f"has {list(value)}. Add it."
            )
