"""The steps of all subjects from boundary to boundary, along which every solver carries the states."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hierax.data.population import Population
from hierax.dynamics.doses.boundaries import Block, Boundaries, Order, arrival_blocks, sort_boundaries
from hierax.dynamics.doses.breaks import within_history
from hierax.dynamics.doses.inputs import Inputs
from hierax.dynamics.ode.system import Rows, System


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Steps:
    """Intervals in order of time, and the events at the end of each; steps are the first axis.

    Attributes
    ----------
    start, gap : array, (step, row)
        Time at which the interval begins, and its length.
    rows : Rows
        Arguments of the vector field in the interval, (step, row, ...); constant ones have no step axis.
    fresh : bool array, (step, row)
        Whether the system starts anew (at ``y0``) at the end.
    jump : array, (step, row, compartment)
        Amounts that are added at the end.
    replace, steady : array or None, (step, row) and (step, state, row)
        Steady states at the end: whether they replace the current state, and the amounts that are added.
    """

    start: Float[Array, "step row"]
    gap: Float[Array, "step row"]
    rows: Rows
    fresh: Bool[Array, "step row"]
    jump: Float[Array, "step row compartment"]
    replace: Array | None = None
    steady: Array | None = None

    @property
    def along(self) -> tuple[Any, ...]:
        """The arrays that have a step axis, for a scan."""
        rows = self.rows
        moving = (rows.value, rows.slope, rows.reference, rows.now, rows.segment, rows.rate)
        return (self.start, self.gap, moving, self.fresh, self.jump, self.replace, self.steady)

    def rows_at(self, moving: tuple[Any, ...]) -> Rows:
        """Return the rows of one step, whose arrays are ``moving``."""
        names = ("value", "slope", "reference", "now", "segment", "rate")
        return dataclasses.replace(self.rows, **dict(zip(names, moving, strict=True)))


class Mesh(NamedTuple):
    """Frozen times, beside the boundaries, at which steps end; padded entries are in a segment of their own.

    Attributes
    ----------
    time, segment : array, (row, step)
    """

    time: Float[Array, "row step"]
    segment: Array

    def block(self) -> Block:
        """Return the mesh as boundaries; at equal times they come last."""
        order = jnp.full(self.time.shape, jnp.iinfo(jnp.int32).max, jnp.int32)
        return Block(jnp.asarray(self.time), jnp.asarray(self.segment), order)


# The segment of padded entries: the largest number, so that they are sorted last.
PADDING = jnp.iinfo(jnp.int32).max


def main_line(
    pop: Population, system: System, inputs: Inputs, mesh: Mesh | None, order: Order | None = None
) -> tuple[Boundaries, Steps]:
    """Return the sorted boundaries of all subjects, and the steps along them."""
    extra: tuple[Block, ...] = ()
    for forcing in system.arguments.forcings:
        extra += arrival_blocks(forcing.inputs)
    if system.breaks is not None:
        time, segment = within_history(pop, system.breaks, int(PADDING))
        extra += (Mesh(time, segment).block(),)
    if mesh is not None:
        extra += (mesh.block(),)
    line = sort_boundaries(pop, inputs, extra, order)
    jump = _stack([line.jump[number] for number in system.numbers], line.gap)
    rate = jnp.zeros_like(jump)
    if line.speed:
        speed, begun = ([by[number] for number in system.numbers] for by in (line.speed, line.begun))
        rate = _running(_stack(speed, line.gap), _stack(begun, line.gap), line)
    rows = _rows(pop, system, line, rate)
    return line, Steps(
        start=(line.time - line.gap).T, gap=line.gap.T, rows=rows, fresh=line.fresh.T, jump=jnp.moveaxis(jump, 1, 0)
    )


def _stack(parts: list[Array], like: Array) -> Float[Array, "subject boundary compartment"]:
    return jnp.stack(parts, axis=-1) if parts else jnp.zeros((*like.shape, 0))


def _running(speed: Array, begun: Array, line: Boundaries) -> Array:
    """Return the infusion rates in force before each boundary, (subject, boundary, compartment)."""
    total = jnp.cumsum(speed, axis=1)
    # An infusion starts and ends in the same segment, so that both sums return to 0. Where no infusion is running, the
    # rate is set to exactly 0, because rounding leaves a remainder.
    total = jnp.where(jnp.cumsum(begun, axis=1) > 0.5, total, 0.0)
    before = jnp.concatenate([jnp.zeros_like(total[:, :1]), total[:, :-1]], axis=1)
    return jnp.where(line.fresh[..., None], 0.0, before)


def _rows(pop: Population, system: System, line: Boundaries, rate: Array) -> Rows:
    arguments = system.arguments
    times = jnp.asarray(pop.times)
    linear = pop.interpolation == "linear"
    here = line.previous if linear else line.governing
    value = [_take(leaf, here) for leaf in arguments.varying]
    slope: list[Array] = []
    if linear and arguments.varying:
        width = _take(times, line.following) - _take(times, line.previous)
        same = width > 0
        for leaf, low in zip(arguments.varying, value, strict=True):
            rise = _take(leaf, line.following) - low
            wide = jnp.where(same, width, 1.0).reshape(width.shape + (1,) * (rise.ndim - 2))
            slope.append(jnp.where(same.reshape(wide.shape), rise / wide, 0.0))
    step_first = lambda leaf: jnp.moveaxis(leaf, 1, 0)  # noqa: E731
    return Rows(
        constant=arguments.constant,
        value=[step_first(leaf) for leaf in value],
        slope=[step_first(leaf) for leaf in slope],
        reference=_take(times, line.previous).T,
        now=(line.time - 0.5 * line.gap).T,
        segment=line.segment.T,
        rate=step_first(rate),
        forcings=arguments.forcings,
        transits=arguments.transits,
    )


def _take(leaf: Array, index: Array) -> Array:
    """Return values (subject, time, ...) at records (subject, boundary)."""
    wide = index.reshape(index.shape + (1,) * (leaf.ndim - 2))
    return jnp.take_along_axis(leaf, wide, axis=1)
