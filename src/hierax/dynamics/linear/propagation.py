"""Linear compartments from boundary to boundary: any number of doses, parameters that change between records.

The amounts are carried along the sorted boundaries of a subject by exact propagators, which are computed for all
intervals at once. The cost grows with the number of records plus the number of doses.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hierax.data.population import Population
from hierax.dynamics.doses.boundaries import Boundaries, sort_boundaries
from hierax.dynamics.doses.inputs import Inputs
from hierax.dynamics.linear.disposition import Micro, Modes, sum_of_modes
from hierax.dynamics.linear.divided_differences import exp_difference, exp_integral
from hierax.dynamics.linear.responses import Timing, direct, respond, time_doses

Amounts = dict[int, Float[Array, "subject time"]]


def propagate(pop: Population, micro: Micro, ka: Array | None, inputs: Inputs, wanted: tuple[int, ...]) -> Amounts:
    """Return the amounts in the wanted states at every record; -1 is the depot, 0 the central compartment."""
    line = sort_boundaries(pop, inputs)
    parameters = [micro.k, *sum(micro.exchange, ()), *([] if ka is None else [ka])]
    if all(value.shape[1] == 1 for value in parameters):
        at_boundaries = _walk_modes(pop, micro, ka, inputs, line, wanted)
    else:
        at_boundaries = _walk_states(pop, micro, ka, inputs, line, wanted)
    return {state: jnp.take_along_axis(value, line.at_record, axis=1) for state, value in at_boundaries.items()}


def _walk_modes(
    pop: Population, micro: Micro, ka: Array | None, inputs: Inputs, line: Boundaries, wanted: tuple[int, ...]
) -> Amounts:
    """Return the amounts by state, (subject, boundary), for constant parameters: every mode is carried on its own.

    A mode behaves like a compartment of its own, and has one amount for each dosed compartment of the disposition. The
    depot feeds the amounts that belong to the central compartment.
    """
    first = 1 if ka is None else 2
    jump = {number - first: value for number, value in line.jump.items()}
    speed = {number - first: value for number, value in line.speed.items()}
    fed = sorted({max(state, 0) for state in jump})
    time = _steady_timing(inputs)

    def amounts(modes: Modes) -> Amounts:
        rate, shape = modes.rate, (len(modes.rate), *line.gap.shape)
        decay = jnp.exp(-rate * line.gap)
        integral = exp_integral(rate, jnp.broadcast_to(line.gap, shape)) if speed else None
        depot = _depot(ka, line, inputs, time, jump, speed)
        through = None if ka is None or depot is None else exp_difference(ka, rate, line.gap)

        def walk(carry: Any, boundary: Any) -> Any:
            parts, store, flow = carry
            decay, integral, through, depot, keep, added, change = boundary
            moved = {}
            for target in fed:
                part = decay * parts[target]
                if target in flow:
                    part = part + integral * flow[target]
                if target == 0 and depot is not None:
                    part = part + depot["ka"] * through * store
                    if -1 in flow:
                        part = part + (integral - through) * flow[-1]
                moved[target] = keep * part + added[target]
            if depot is not None:
                store = depot["decay"] * store + (depot["integral"] * flow[-1] if -1 in flow else 0.0)
                store = keep * store + depot["added"]
            flow = {state: keep * flow[state] + change[state] for state in flow}
            return (moved, store, flow), (moved, store)

        added = {state: jnp.broadcast_to(jump.get(state, jnp.zeros_like(line.gap)), shape) for state in fed}
        if time is not None:
            for state, value in _steady_modes(pop, rate, ka, inputs, time).items():
                added[state] = added[state] + line.at_steady(value)
        zero = jnp.zeros(line.gap.shape[0])
        start = (
            {state: jnp.zeros(shape[:2]) for state in fed},
            None if depot is None else zero,
            {state: zero for state in speed},
        )
        along = (decay, integral, through, depot, line.keep, added, speed)
        _, (parts, store) = jax.lax.scan(walk, start, jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), along))
        out = {
            target: _total([(modes.weight[target, s][..., 0] * part).sum(1) for s, part in parts.items()]).T
            for target in wanted
            if target >= 0
        }
        if -1 in wanted:
            # ``sum_of_modes`` needs results that are linear in the weights. Those of the central compartment add up to
            # 1, so that this factor makes the depot's amount linear in them without changing it.
            stored = jnp.zeros_like(line.gap) if store is None else store.T
            out[-1] = stored * modes.weight[0, 0].sum(0)
        return out

    return sum_of_modes(micro, amounts)


def _depot(
    ka: Array | None, line: Boundaries, inputs: Inputs, time: Timing | None, jump: Any, speed: Any
) -> dict[str, Array] | None:
    """Return the depot's propagators over each interval and what enters it at each boundary; None without doses."""
    if ka is None or -1 not in jump:
        return None
    added = jump[-1]
    if time is not None:
        steady = _where_acting(inputs, 1, direct(ka, inputs, time))
        added = added + line.at_steady(steady)
    out = {"decay": jnp.exp(-ka * line.gap), "added": added, "ka": jnp.broadcast_to(ka, line.gap.shape)}
    return out | ({"integral": exp_integral(ka, line.gap)} if -1 in speed else {})


def _steady_timing(inputs: Inputs) -> Timing | None:
    """Return the timing of the steady states at their own records."""
    if not inputs.steady_states:
        return None
    return time_doses(inputs, inputs.time, inputs.periodic | inputs.constant)


def _where_acting(inputs: Inputs, number: int, values: Array) -> Array:
    """Return the values at the steady states of one compartment, and 0 at all other doses."""
    return jnp.where((inputs.periodic | inputs.constant) & (inputs.compartment == number), values, 0.0)


def _total(parts: list[Array]) -> Array:
    """Return the sum of at least one array."""
    return functools.reduce(jnp.add, parts)


def _steady_modes(pop: Population, rate: Array, ka: Array | None, inputs: Inputs, time: Timing) -> dict[int, Array]:
    """Return by state the amounts of every mode at the steady states' own records, (mode, subject, dose)."""
    first = 1 if ka is None else 2
    out: dict[int, Array] = {}
    for number in pop.events.compartments:
        state = number - first
        part = _where_acting(inputs, number, respond(state, rate, ka, inputs, time))
        target = max(state, 0)
        out[target] = out[target] + part if target in out else part
    return out


def _walk_states(
    pop: Population, micro: Micro, ka: Array | None, inputs: Inputs, line: Boundaries, wanted: tuple[int, ...]
) -> Amounts:
    """Return the amounts by state, (subject, boundary), for parameters that change from interval to interval."""
    first = 1 if ka is None else 2
    states = [*([] if ka is None else [-1]), *range(len(micro.exchange) + 1)]
    jump = {number - first: value for number, value in line.jump.items()}
    speed = {number - first: value for number, value in line.speed.items()}
    steady = _steady_states(pop, micro, ka, inputs)
    zero = jnp.zeros_like(line.gap)
    added = {state: jump.get(state, zero) for state in states}
    added |= {state: added[state] + line.at_steady(value) for state, value in steady.items()}
    steps, flows = _propagators(micro, ka, line, list(speed), states)

    def walk(carry: Any, boundary: Any) -> Any:
        amount, flow = carry
        step, input, added, keep, change = boundary
        moved = {state: _carry(step, amount, state) + _carry(input, flow, state) for state in states}
        amount = {state: keep * moved[state] + added[state] for state in states}
        return (amount, {state: keep * flow[state] + change[state] for state in flow}), amount

    start = ({state: zero[:, 0] for state in states}, {state: zero[:, 0] for state in speed})
    along = jax.tree.map(jnp.transpose, (steps, flows, added, line.keep, speed))
    _, amounts = jax.lax.scan(walk, start, along)
    return {state: amounts[state].T for state in wanted}


def _carry(propagator: dict[Any, Array], sources: dict[int, Array], target: int) -> Any:
    """Return the amount in the target state that comes from all sources over an interval."""
    pairs = [(propagator[target, source], value) for source, value in sources.items() if (target, source) in propagator]
    return sum((share * value for share, value in pairs), start=0.0)


def _propagators(
    micro: Micro, ka: Array | None, line: Boundaries, infused: list[int], states: list[int]
) -> tuple[dict[Any, Array], dict[Any, Array]]:
    """Return the propagators of amounts and of infusion rates over each interval: (to, from) → (subject, boundary)."""
    micro = jax.tree.map(lambda value: _take(value, line.governing), micro)
    absorption = None if ka is None else _take(ka, line.governing)
    targets = [state for state in states if state >= 0]

    def amounts(modes: Modes) -> tuple[dict[Any, Array], dict[Any, Array]]:
        decay = jnp.exp(-modes.rate * line.gap)
        integral = exp_integral(modes.rate, jnp.broadcast_to(line.gap, decay.shape)) if infused else decay
        through = decay if absorption is None else exp_difference(absorption, modes.rate, line.gap)
        steps, flows = {}, {}
        for o in targets:
            for i in targets:
                steps[o, i] = (modes.weight[o, i] * decay).sum(0)
                if i in infused:
                    flows[o, i] = (modes.weight[o, i] * integral).sum(0)
            if absorption is not None:
                steps[o, -1] = (modes.weight[o, 0] * through).sum(0) * absorption
                if -1 in infused:
                    flows[o, -1] = (modes.weight[o, 0] * (integral - through)).sum(0)
        return steps, flows

    steps, flows = sum_of_modes(micro, amounts)
    if absorption is not None:
        steps[-1, -1] = jnp.exp(-absorption * line.gap)
        if -1 in infused:
            flows[-1, -1] = exp_integral(absorption, line.gap)
    return steps, flows


def _take(value: Array, index: Array) -> Array:
    """Return a parameter at the given records."""
    if value.shape[-1] == 1:
        return jnp.broadcast_to(value, index.shape)
    return jnp.take_along_axis(jnp.broadcast_to(value, (index.shape[0], value.shape[-1])), index, axis=1)


def _steady_states(pop: Population, micro: Micro, ka: Array | None, inputs: Inputs) -> dict[int, Array]:
    """Return by state the amounts of each steady state at its record, with the parameters of that record."""
    time = _steady_timing(inputs)
    if time is None:
        return {}
    micro = jax.tree.map(lambda value: _take(value, inputs.record), micro)
    absorption = None if ka is None else _take(ka, inputs.record)

    def amounts(modes: Modes) -> dict[int, Array]:
        parts = _steady_modes(pop, modes.rate, absorption, inputs, time)
        return {
            target: _total([(modes.weight[target, state] * part).sum(0) for state, part in parts.items()])
            for target in range(len(micro.exchange) + 1)
        }

    out = sum_of_modes(micro, amounts)
    return out if absorption is None else out | {-1: _where_acting(inputs, 1, direct(absorption, inputs, time))}
