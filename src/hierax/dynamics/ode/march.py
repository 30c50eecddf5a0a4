"""The two loops of the frozen grid: one chooses the steps, and the other carries the states along them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hierax.dynamics.ode.steps import PADDING, Mesh, Steps
from hierax.dynamics.ode.system import System
from hierax.dynamics.ode.tableau import Tableau, step, step_with_error

# Codes of what may go wrong in a solve, by subject.
OK, MAX_STEPS, NON_FINITE, NO_STEADY_STATE, NOT_LINEAR, STALE = 0, 1, 2, 3, 4, 5
# Tolerance of the pilot's first pass, which only finds the peak of every state and need not be exact.
_ROUGH = 1e-3
# Steps stay below this fraction of the longest stable step, so that the grid also serves values with faster rates.
_STABLE = 0.5
# Control of the step length: a safety factor on the length that the error estimate suggests, and the limits of the
# ratio of one length to the one before.
_SAFETY, _LEAST_RATIO, _GREATEST_RATIO = 0.9, 0.2, 5.0
# Added to scales that may be 0. It is far above the smallest positive number, so that its product with a tolerance is
# not 0.
_TINY = float(np.finfo(float).tiny) ** 0.5


def land(system: System, y0: Array, y: Array, fresh: Array, jump: Array, replace: Any, steady: Any) -> Array:
    """Return the state after the events at the end of a step: a reset, a steady state, and doses, in this order."""
    y = jnp.where(fresh, y0, y)
    if replace is not None:
        y = jnp.where(replace, 0.0, y) + steady
    return y + system.place @ jump.T


Advance = Callable[[Array, Array, Any, Array], tuple[Array, Array]]


def follow(system: System, steps: Steps, y: Array, y0: Array, advance: Advance) -> tuple[Array, Array, Array]:
    """Carry the state from boundary to boundary by a solver's own function for one interval.

    ``advance(start, gap, moving, y)`` returns the state at the end of an interval, (state, row), and a code, (row,).
    The result is the state at the end of every interval, after the events there; the first code of every row that is
    not OK; and the start of the interval with that code.
    """

    def walk(carry: Any, this: Any) -> tuple[Any, Array]:
        y, code, when = carry
        start, gap, moving, *events = this
        moved, fault = advance(start, gap, moving, y)
        fault = jnp.where((fault == OK) & ~jnp.isfinite(jax.lax.stop_gradient(moved)).all(0), NON_FINITE, fault)
        new = (code == OK) & (fault != OK)
        y = land(system, y0, moved, *events)
        return (y, jnp.where(new, fault, code), jnp.where(new, start, when)), y

    along: Any = steps.along
    (_, code, when), out = jax.lax.scan(walk, (y, jnp.zeros(y.shape[1], int), steps.start[0]), along)
    return out, code, when


def march(
    system: System, table: Tableau, steps: Steps, y: Array, consts: Any, y0: Array, halves: bool = False
) -> Float[Array, "step state row"]:
    """Return the state at the end of every step, after the events there.

    ``halves`` takes every step as two half steps: the change of the result is an estimate of its error.
    """

    def walk(y: Array, this: Any) -> tuple[Array, Array]:
        start, gap, moving, *events = this
        field = system.field(steps.rows_at(moving), consts)
        if halves:
            gap = 0.5 * gap

            def half(number: float, y: Array) -> Array:
                return step(field, table, start + number * gap, gap, y)

            y = half(1, half(0, y))
        else:
            y = step(field, table, start, gap, y)
        y = land(system, y0, y, *events)
        return y, y

    # With a checkpoint, reverse mode stores only the states and computes the stages again, which saves memory.
    along: Any = steps.along
    return jax.lax.scan(jax.checkpoint(walk), y, along)[1]


class Pilot(NamedTuple):
    """The result of the adaptive pass.

    Attributes
    ----------
    mesh : Mesh
        Times inside the intervals at which steps end.
    count : int array, (row,)
        How many of them there are.
    code, when : array, (row,)
        What went wrong (one of the codes of this module), and at which time.
    peak : array, (state, row)
        The largest value of every state.
    limited : int array, (row,)
        How many steps had their length limited by stability, not by accuracy; in a stiff system, these are many.
    """

    mesh: Mesh
    count: Int[Array, " row"]
    code: Int[Array, " row"]
    when: Float[Array, " row"]
    peak: Float[Array, "state row"]
    limited: Int[Array, " row"]


# The pilot's state, by row: time, states, and the step length to try next; the interval it is in (``at``); the time and
# segment of the steps inside intervals so far, and their count; its code; whether a dose came after the last step;
# the direction of the power iteration in ``_fastest``; how many steps stability limited; and the peaks of the states.
class _Walk(NamedTuple):
    t: Array
    y: Array
    h: Array
    at: Array
    time: Array
    segment: Array
    count: Array
    code: Array
    dosed: Array
    direction: Array
    limited: Array
    peak: Array
    iterations: Array


class _Flight(NamedTuple):
    """What stays the same while the pilot chooses the steps; ``size`` is the room for them."""

    system: System
    table: Tableau
    steps: Steps
    y0: Array
    floor: float
    size: int


def fly(
    system: System,
    table: Tableau,
    steps: Steps,
    y: Array,
    y0: Array,
    tol: tuple[Any, Any],
    floor: float,
    size: int,
) -> Pilot:
    """Choose the steps: solve adaptively between the boundaries, each row with steps of its own.

    A local error counts relative to the state plus ``floor`` times the state's peak. ``tol`` holds the tolerance for
    it, and a second one for the first step after a dose: there a power of a concentration that rises from 0 is not
    smooth, and the method is no more accurate than its embedded estimate. A first, rough pass finds the peaks, so that
    states that start at 0 have a scale.
    """
    flight = _Flight(system, table, steps, y0, floor, size)

    def passes(peak: Array, tol: Any) -> tuple[Array, _Walk]:
        walk = _adapt(flight, y, tol, peak)
        return walk.peak, walk

    unknown = jnp.full(y.shape, -1.0)
    _, both = jax.lax.scan(passes, unknown, tuple(jnp.stack([jnp.maximum(_ROUGH, one), one]) for one in tol))
    last = jax.tree.map(lambda leaf: leaf[-1], both)
    return Pilot(Mesh(last.time, last.segment), last.count, last.code, last.t, last.peak, last.limited)


def _fastest(field: Any, t: Array, y: Array, direction: Array) -> tuple[Array, Array]:
    """Return direction and size of the Jacobian's largest eigenvalue, by power iterations from ``direction``."""

    def iterate(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        v, _ = state
        w = jax.jvp(lambda y: field(t, y), (y,), (v,))[1]
        norm = jnp.sqrt((w * w).sum(0))
        good = jnp.isfinite(norm) & (norm > 0)
        return jnp.where(good, w / jnp.where(good, norm, 1.0), v), jnp.where(good, norm, 0.0)

    unit = direction / jnp.sqrt((direction * direction).sum(0))
    return jax.lax.fori_loop(0, 3, iterate, (unit, jnp.zeros(y.shape[1])))


def _adapt(flight: _Flight, y: Array, tol: tuple[Array, Array], known: Array) -> _Walk:
    """Return the pilot's state after all intervals; ``known`` are the peaks of the states, negative if unknown."""
    system, table, steps, y0, _, size = flight
    total, n = steps.gap.shape
    rows = jnp.arange(n)
    end = steps.start + steps.gap

    def body(walk: _Walk) -> _Walk:
        index = jnp.minimum(walk.at, total - 1)
        going = (walk.at < total) & (walk.code == OK)
        gap, moving, *events = _interval(steps, index, rows)
        left = jnp.where(gap > 0, end[index, rows] - walk.t, 0.0)
        # The rest of the interval is divided into equal steps, none longer than the step length to try.
        count = jnp.maximum(jnp.ceil(left / walk.h - 1e-9), 1.0)
        h = left / count
        field = system.field(steps.rows_at(moving), system.consts)
        moved, error = step_with_error(field, table, walk.t, h, walk.y)
        wide = jnp.maximum(walk.peak, jnp.abs(moved))
        scale = jnp.where(known < 0, wide.max(0), flight.floor * known)
        ratio = _error_ratio(walk, moved, error, scale) / jnp.where(walk.dosed, tol[1], tol[0])
        accept = going & (ratio <= 1.0)
        arrives = accept & (count == 1.0)
        direction, rate = _fastest(field, walk.t, walk.y, walk.direction)
        size_next, limited = _next_step(table, walk.h, h, left, ratio, accept, rate)
        landed = land(system, y0, moved, *events)
        inside = accept & ~arrives
        full = inside & (walk.count >= size)
        slot = jnp.where(inside & ~full, walk.count, size)
        stuck = (left == 0) | (h <= 1e-13 * (jnp.abs(walk.t) + gap) + _TINY)
        code = jnp.where(full, MAX_STEPS, jnp.where(going & ~accept & stuck, NON_FINITE, walk.code))
        jump = events[1]
        return _Walk(
            t=jnp.where(arrives, end[index, rows], jnp.where(accept, walk.t + h, walk.t)),
            y=jnp.where(arrives, landed, jnp.where(accept, moved, walk.y)),
            h=jnp.where(going, size_next, walk.h),
            at=jnp.where(arrives, walk.at + 1, walk.at),
            time=walk.time.at[rows, slot].set(walk.t + h, mode="drop"),
            segment=walk.segment.at[rows, slot].set(moving[4], mode="drop"),
            count=jnp.where(inside & ~full, walk.count + 1, walk.count),
            code=code,
            dosed=jnp.where(arrives, (jump != 0).any(-1) | (walk.dosed & (left == 0)), walk.dosed & ~accept),
            direction=jnp.where(going, direction, walk.direction),
            limited=walk.limited + (going & limited),
            peak=jnp.where(accept, jnp.maximum(wide, jnp.where(arrives, jnp.abs(landed), 0.0)), walk.peak),
            iterations=walk.iterations + 1,
        )

    # The limit on iterations is for rows that hardly advance; they get the code MAX_STEPS below.
    def going_on(walk: _Walk) -> Array:
        return jnp.any((walk.at < total) & (walk.code == OK)) & (walk.iterations < 30 * (total + size))

    out = jax.lax.while_loop(going_on, body, _at_the_start(steps, y, size))
    return out._replace(code=jnp.where((out.at < total) & (out.code == OK), MAX_STEPS, out.code))


def _interval(steps: Steps, index: Array, rows: Array) -> tuple[Any, ...]:
    """Return the current interval of every row: its length, its arguments, and the events at its end."""
    fixed = (steps.gap, steps.along[2], steps.fresh, steps.jump, steps.replace)
    out = jax.tree.map(lambda x: x[index, rows], fixed)
    steady = None if steps.steady is None else jnp.moveaxis(steps.steady, 1, 0)[:, index, rows]
    return (*out, steady)


def _error_ratio(walk: _Walk, moved: Array, error: Array, scale: Array) -> Array:
    """Return the largest error relative to state and scale; infinite where the step's result is not finite."""
    scale = jnp.maximum(jnp.maximum(jnp.abs(walk.y), jnp.abs(moved)), scale) + _TINY
    ratio = jnp.max(jnp.abs(error) / scale, axis=0)
    return jnp.where(jnp.isfinite(moved).all(0) & jnp.isfinite(ratio), ratio, jnp.inf)


def _next_step(
    table: Tableau, asked: Array, h: Array, left: Array, ratio: Array, accept: Array, rate: Array
) -> tuple[Array, Array]:
    """Return the length of the next step, and whether it is stability that limits it."""
    factor = jnp.clip(_SAFETY * jnp.maximum(ratio, 1e-12) ** (-1.0 / table.order), _LEAST_RATIO, _GREATEST_RATIO)
    # A step that its interval has cut to less than half the wanted length says nothing about longer ones.
    free = ~accept | (h > 0.5 * asked) | (factor < 1)
    wanted = jnp.where(free & (left > 0), h * factor, asked)
    longest = _STABLE * table.stability / (rate + _TINY)
    return jnp.minimum(wanted, longest), accept & (left > 0) & (wanted > longest) & (h > 0.5 * longest)


def _at_the_start(steps: Steps, y: Array, size: int) -> _Walk:
    n = y.shape[1]
    last = (steps.start[-1] + steps.gap[-1])[:, None]
    return _Walk(
        t=steps.start[0],
        y=y,
        h=jnp.full(n, jnp.inf),
        at=jnp.zeros(n, int),
        time=jnp.broadcast_to(last, (n, size)),
        segment=jnp.full((n, size), PADDING, steps.rows.segment.dtype),
        count=jnp.zeros(n, int),
        code=jnp.zeros(n, int),
        dosed=jnp.zeros(n, bool),
        direction=jnp.ones(y.shape),
        limited=jnp.zeros(n, int),
        peak=jnp.abs(y),
        iterations=jnp.array(0),
    )
