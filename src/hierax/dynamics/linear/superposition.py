"""Linear compartments by superposition: the sum over all doses at every record, for constant parameters."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from hierax.data.population import Population
from hierax.dynamics.doses.inputs import Inputs
from hierax.dynamics.linear.disposition import Micro, Modes, sum_of_modes
from hierax.dynamics.linear.responses import Timing, direct, respond, time_doses


def superpose(
    pop: Population, micro: Micro, ka: Array | None, inputs: Inputs, wanted: tuple[int, ...]
) -> dict[int, Float[Array, "subject time"]]:
    """Return the amounts in the wanted states at every record; -1 is the depot, 0 the central compartment.

    The cost grows with records × doses × modes.
    """
    dose = on_last_axis(inputs)
    times = jnp.asarray(pop.times)[:, :, None]
    acts = _acting(pop, dose, times)
    return superpose_at(sources_of(pop, ka), micro, ka, dose, time_doses(dose, times, acts), acts, wanted)


def superpose_at(
    sources: dict[int, int],
    micro: Micro,
    ka: Array | None,
    dose: Inputs,
    time: Timing,
    acts: Array,
    wanted: tuple[int, ...],
) -> dict[int, Float[Array, "subject time"]]:
    """Return the amounts at given timings of the doses (arrays (subject, time, dose))."""
    shape = acts.shape[:2]
    out: dict[int, Array] = {}
    if -1 in wanted:
        assert ka is not None
        depot = direct(ka[..., None], dose, time)
        out[-1] = jnp.where(acts & (dose.compartment == 1), depot, 0.0).sum(-1)

    def amounts(modes: Modes) -> dict[int, Array]:
        rate = modes.rate[..., None]
        absorption = None if ka is None else ka[..., None]
        # By source state, the amounts of every mode, (mode, subject, time), summed over the doses into that state.
        parts = {}
        for number, state in sources.items():
            response = respond(state, rate, absorption, dose, time)
            parts[state] = jnp.where(acts & (dose.compartment == number), response, 0.0).sum(-1)
        return {
            target: sum(
                ((modes.weight[target, max(state, 0)] * part).sum(0) for state, part in parts.items()),
                start=jnp.zeros(shape),
            )
            for target in wanted
            if target >= 0
        }

    return out | sum_of_modes(micro, amounts)


def sources_of(pop: Population, ka: Array | None) -> dict[int, int]:
    """Return the state that each dosed compartment is: CMT → state."""
    first = 1 if ka is None else 2
    return {number: number - first for number in pop.events.compartments}


def on_last_axis(inputs: Inputs) -> Inputs:
    """Return the doses as arrays (subject, 1, dose)."""
    arrays = {
        field.name: getattr(inputs, field.name)[:, None, :]
        for field in dataclasses.fields(inputs)
        if hasattr(getattr(inputs, field.name), "ndim")
    }
    return dataclasses.replace(inputs, **arrays)


def _acting(pop: Population, dose: Inputs, times: Array) -> Array:
    """Return which doses act on which records: those of the same segment that have arrived before the record."""
    listed = jnp.arange(pop.n_records)[None, :, None] >= dose.record
    elapsed = times - dose.arrival
    # At equal times the order in the file decides.
    acts = (elapsed > 0) | ((elapsed == 0) & listed)
    if dose.steady_states:
        # A steady state acts from its record on, whatever its lag, because earlier doses of it have arrived before.
        acts = jnp.where(dose.periodic | dose.constant, listed, acts)
    if pop.events.resets:
        acts = acts & (jnp.asarray(pop.segment)[:, :, None] == dose.segment)
    return acts & dose.mask
