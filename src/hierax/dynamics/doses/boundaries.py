"""The boundaries of a subject: all its records, doses and other events, in the order in which they happen."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hierax.data.population import Population
from hierax.dynamics.doses.inputs import Inputs


class Boundaries(NamedTuple):
    """Records, arrivals, ends of infusions, steady states and changes of parameters, sorted.

    Attributes
    ----------
    time, gap : array, (subject, boundary)
        Time of the boundary, and time since the boundary before it; no time passes across a reset.
    fresh : bool array, (subject, boundary)
        Which boundaries are the first of their segment, because the system was reset since the boundary before.
    governing, previous, following : int array, (subject, boundary)
        Index of the record whose parameters hold in the interval that ends at the boundary; of the last record before
        the boundary; and of the first record at or after it.
    jump, speed, begun : dict of arrays, (subject, boundary)
        By CMT: the amount that is added; the change of the infusion rate; and the change of the number of infusions
        that are running.
    rank : int array, (subject, boundary)
        The sorting: the index that each boundary has in the unsorted sequence.
    at_record : int array, (subject, time)
        Index of the boundary that each record is.
    steady : int
        Index in the unsorted sequence at which the steady states begin.
    segment : int array, (subject, boundary)
        How often the system was reset before; doses act only within their segment.
    lost : bool array, (subject, dose)
        Steady states with more doses still on their way or running at their record than there are slots to follow them.
        Their amounts are NaN, because no number may be silently wrong.
    in_order : bool array, (subject,)
        Whether the boundaries are sorted, which they need not be in an order that was found for other times.
    """

    time: Float[Array, "subject boundary"]
    gap: Float[Array, "subject boundary"]
    fresh: Bool[Array, "subject boundary"]
    governing: Int[Array, "subject boundary"]
    previous: Int[Array, "subject boundary"]
    following: Int[Array, "subject boundary"]
    jump: dict[int, Array]
    speed: dict[int, Array]
    begun: dict[int, Array]
    rank: Int[Array, "subject boundary"]
    at_record: Int[Array, "subject time"]
    steady: int
    segment: Int[Array, "subject boundary"]
    lost: Bool[Array, "subject dose"]
    in_order: Bool[Array, " subject"]

    @property
    def keep(self) -> Float[Array, "subject boundary"]:
        """Factor on amounts at a boundary: 0 where the system was reset since the boundary before, else 1."""
        return jnp.where(self.fresh, 0.0, 1.0)

    def at_steady(self, values: Float[Array, "*mode subject dose"]) -> Float[Array, "*mode subject boundary"]:
        """Return values of steady states (zero for other doses) at the boundaries where they happen."""
        return self._at_steady(jnp.where(self.lost, jnp.nan, values))

    def at_steady_flags(self, flags: Bool[Array, "subject dose"]) -> Bool[Array, "subject boundary"]:
        """Return flags of steady states at the boundaries where they happen."""
        return self._at_steady(flags)

    def _at_steady(self, values: Array) -> Array:
        after = self.rank.shape[-1] - self.steady - values.shape[-1]
        ends = ((0, 0),) * (values.ndim - 1)
        wide = jnp.pad(values, (*ends, (self.steady, after)))
        return jnp.take_along_axis(wide, jnp.broadcast_to(self.rank, wide.shape), axis=-1)


class Block(NamedTuple):
    """Boundaries of one kind: time, segment, and order at equal times, each (subject, n)."""

    time: Array
    segment: Array
    order: Array


def arrival_blocks(inputs: Inputs) -> tuple[Block, ...]:
    """Return the times at which doses arrive and infusions end, including the earlier doses of steady states."""
    return _slot_blocks(inputs, _slots(inputs)[0])


def _slot_blocks(inputs: Inputs, slots: list[_Slot]) -> tuple[Block, ...]:
    blocks = [Block(slot.start, slot.segment, 4 * slot.record + 1) for slot in slots]
    if inputs.infusions:
        blocks += [Block(slot.end, slot.segment, 4 * slot.record + 1) for slot in slots]
    return tuple(blocks)


class Order(NamedTuple):
    """A sorting that was found before: ``rank`` and ``at_record`` as in :class:`Boundaries`."""

    rank: Int[Array, "subject boundary"]
    at_record: Int[Array, "subject time"]


def sort_boundaries(
    pop: Population, inputs: Inputs, extra: tuple[Block, ...] = (), order: Order | None = None
) -> Boundaries:
    """Return everything that happens to each subject, and ``extra`` times, sorted by segment, time, and file order.

    Sorting takes as long as a short ODE solve; an ``order`` that was found for the same times saves it. The result's
    ``in_order`` says whether that order still holds. An order of another size is ignored.
    """
    times, records = jnp.asarray(pop.times), pop.n_records
    segment, index = jnp.asarray(pop.segment), jnp.broadcast_to(jnp.arange(records), times.shape)
    # Order at equal times, within a record: steady states (0), doses and ends of infusions (1), the record itself (2),
    # and a change of parameters half way to the next record (3).
    blocks = [Block(times, segment, 4 * index + 2)]
    slots, lost = _slots(inputs)
    blocks += _slot_blocks(inputs, slots)
    steady = sum(block.time.shape[1] for block in blocks)
    if inputs.steady_states:
        blocks.append(Block(inputs.time, _sorted_segment(inputs), 4 * inputs.record))
    if pop.interpolation == "midpoint" and records > 1:
        blocks.append(_middles(times, segment, index))
    blocks += extra
    time, where, listed = (jnp.concatenate(part, axis=1) for part in zip(*blocks, strict=True))
    if order is None or order.rank.shape != time.shape or order.at_record.shape != times.shape:
        rank = jnp.lexsort((listed, jax.lax.stop_gradient(time), where), axis=1)
        at_record = jnp.argsort(rank, axis=1)[:, :records]
    else:
        rank, at_record = jnp.asarray(order.rank), jnp.asarray(order.at_record)
    time, where, listed = (jnp.take_along_axis(part, rank, axis=1) for part in (time, where, listed))
    fresh = jnp.concatenate([jnp.ones_like(where[:, :1], bool), where[:, 1:] != where[:, :-1]], axis=1)
    gap = jnp.concatenate([jnp.zeros_like(time[:, :1]), jnp.diff(time, axis=1)], axis=1)
    total = time.shape[1]

    def put(number: int, starts: list[Array], ends: list[Array]) -> Array:
        """Return the values at the starts and ends of one compartment's doses, sorted, and 0 at other boundaries."""
        places = [slot.compartment for slot in slots] * (2 if ends else 1)
        parts = [jnp.where(c == number, v, 0.0) for c, v in zip(places, (*starts, *ends), strict=True)]
        values = jnp.concatenate([jnp.zeros(times.shape), *parts], axis=1)
        return jnp.take_along_axis(jnp.pad(values, ((0, 0), (0, total - values.shape[1]))), rank, axis=1)

    speeds, runs = [slot.rate for slot in slots], [slot.runs * 1.0 for slot in slots]
    numbers = pop.events.compartments
    governing, previous, following = _governing(pop, time, rank)
    return Boundaries(
        time=time,
        gap=jnp.where(fresh, 0.0, gap),
        fresh=fresh,
        governing=governing,
        previous=previous,
        following=following,
        jump={number: put(number, [slot.amount for slot in slots], []) for number in numbers},
        speed={n: put(n, speeds, [-speed for speed in speeds]) for n in numbers} if inputs.infusions else {},
        begun={n: put(n, runs, [-run for run in runs]) for n in numbers} if inputs.infusions else {},
        rank=rank,
        at_record=at_record,
        steady=steady,
        segment=where,
        lost=lost,
        in_order=_in_order(where, jax.lax.stop_gradient(time), listed),
    )


def _in_order(where: Array, time: Array, listed: Array) -> Bool[Array, " subject"]:
    """Return for which subjects the sequence is sorted by segment, time, and file order."""
    before = jnp.array(True)
    for part in (listed, time, where):
        before = (part[:, :-1] < part[:, 1:]) | ((part[:, :-1] == part[:, 1:]) & before)
    return before.all(1)


def _middles(times: Array, segment: Array, index: Array) -> Block:
    """Return the times half way between records of one segment, at which interpolated parameters change."""
    middle = 0.5 * (times[:, :-1] + times[:, 1:])
    same = segment[:, :-1] == segment[:, 1:]
    return Block(jnp.where(same, middle, times[:, :-1]), segment[:, :-1], 4 * index[:, :-1] + 3)


class _Slot(NamedTuple):
    """Doses as they enter the sequence: start, end, amount of a bolus, rate of an infusion, and whether it is one."""

    start: Array
    end: Array
    amount: Array
    rate: Array
    runs: Array
    segment: Array
    record: Array
    compartment: Array


def _sorted_segment(inputs: Inputs) -> Array:
    """Return the segments of doses; padded entries get the largest number, so that they are sorted last."""
    return jnp.where(inputs.mask, inputs.segment, jnp.iinfo(inputs.segment.dtype).max)


def _slots(inputs: Inputs) -> tuple[list[_Slot], Array]:
    """Return the doses, and the doses of each steady state that still arrive or run after its record.

    Return also which steady states have more of these doses than there are slots.
    """
    segment = _sorted_segment(inputs)
    end = inputs.arrival + inputs.duration
    alone = ~(inputs.periodic | inputs.constant)
    bolus = jnp.where(alone & ~inputs.infused, inputs.amount, 0.0)
    runs = alone & inputs.infused
    rate = jnp.where(runs, inputs.rate, 0.0)
    out = [_Slot(inputs.arrival, end, bolus, rate, runs, segment, inputs.record, inputs.compartment)]
    lost = jnp.zeros(inputs.mask.shape, bool)
    if not inputs.steady_states:
        return out, lost
    # Slots are made for the few steady-state doses of a subject only, because each slot adds boundaries.
    chosen = jnp.argsort(~inputs.periodic, axis=1, stable=True)[:, : inputs.steady_states]

    def pick(values: Array) -> Array:
        return jnp.take_along_axis(values, chosen, axis=1)

    time, periodic, interval = pick(inputs.time), pick(inputs.periodic), pick(inputs.interval)
    infused, amount, speed = pick(inputs.infused), pick(inputs.amount), pick(inputs.rate)
    rest = (pick(segment), pick(inputs.record), pick(inputs.compartment))
    for slot in range(inputs.slots):
        start, stop = pick(inputs.arrival) - slot * interval, pick(end) - slot * interval
        given = jnp.where(periodic & ~infused & (start > time), amount, 0.0)
        runs = periodic & infused & (stop > time)
        begin = jnp.maximum(start, time)
        out.append(_Slot(begin, jnp.maximum(stop, begin), given, jnp.where(runs, speed, 0.0), runs, *rest))
    return out, inputs.periodic & (end - inputs.slots * inputs.interval > inputs.time)


def _governing(pop: Population, time: Array, rank: Array) -> tuple[Array, Array, Array]:
    """Return the records whose parameters hold until each boundary, and the records before and after it."""
    records = pop.n_records
    is_record = rank < records
    count = jnp.cumsum(is_record, axis=1)
    # The record at or after the boundary, and the last one before it.
    following = jnp.minimum(count - is_record, records - 1)
    previous = jnp.clip(count - is_record - 1, 0, records - 1)
    if pop.interpolation != "midpoint":
        return following if pop.interpolation == "nocb" else previous, previous, following
    times = jnp.asarray(pop.times)
    middle = 0.5 * (jnp.take_along_axis(times, previous, axis=1) + jnp.take_along_axis(times, following, axis=1))
    return jnp.where(time <= middle, previous, following), previous, following
