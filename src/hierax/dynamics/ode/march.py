"""Marching over given steps, and choosing them: the two loops of the frozen grid."""

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
# The first pass of the pilot finds the peak of every state; it need not be exact.
_ROUGH = 1e-3
# Steps stay below this fraction of the longest stable one, so that the grid holds for faster subjects too.
_STABLE = 0.5
_SAFETY, _SLOWEST, _FASTEST = 0.9, 0.2, 5.0
# A scale for states that are 0, far enough from the smallest number for products with the tolerance.
_TINY = float(np.finfo(float).tiny) ** 0.5


def land(system: System, y0: Array, y: Array, fresh: Array, jump: Array, replace: Any, steady: Any) -> Array:
    """Let happen what happens at the end of a step: reset, steady state, dose."""
    y = jnp.where(fresh, y0, y)
    if replace is not None:
        y = jnp.where(replace, 0.0, y) + steady
    return y + system.place @ jump.T


Advance = Callable[[Array, Array, Any, Array], tuple[Array, Array]]


def follow(system: System, steps: Steps, y: Array, y0: Array, advance: Advance) -> tuple[Array, Array, Array]:
    """Carry the state along steps that a solver takes by itself.

    ``advance(start, gap, moving, y)`` returns the state at the end of an interval, (state, row), and a code, (row,).
    Returns the state at the end of every step, what happens there included; the first code of every row that is not
    OK, and where that interval began.
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
    """Return the state at the end of every step, what happens there included.

    ``halves`` takes every step as two: what the result then differs by is the error of the steps.
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

    # Reverse mode keeps the states alone and computes the stages again: memory linear in the steps.
    along: Any = steps.along
    return jax.lax.scan(jax.checkpoint(walk), y, along)[1]


class Pilot(NamedTuple):
    """What the adaptive pass found.

    Attributes
    ----------
    mesh : Mesh
        Times inside the intervals at which steps end.
    count : int array, (row,)
        How many of them there are.
    code, when : array, (row,)
        What went wrong, and at which time.
    peak : array, (state, row)
        The largest value of every state.
    limited : int array, (row,)
        How many steps were as long as stability allows, not accuracy: many of them are the mark of a stiff system.
    """

    mesh: Mesh
    count: Int[Array, " row"]
    code: Int[Array, " row"]
    when: Float[Array, " row"]
    peak: Float[Array, "state row"]
    limited: Int[Array, " row"]


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
    """What the pilot flies along, and how."""

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

    A local error counts relative to the state plus ``floor`` times the state's peak. ``tol`` is the tolerance for it,
    and that for the first step after a dose: a power of a concentration that rises from 0 is not smooth there, so that
    the method is no better than its estimate. A first, rough pass finds the peaks, so that states that start from
    nothing have a scale.
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
    """Return an estimate of the largest eigenvalue of the Jacobian in size, by power iterations along the way."""

    def iterate(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        v, _ = state
        w = jax.jvp(lambda y: field(t, y), (y,), (v,))[1]
        norm = jnp.sqrt((w * w).sum(0))
        good = jnp.isfinite(norm) & (norm > 0)
        return jnp.where(good, w / jnp.where(good, norm, 1.0), v), jnp.where(good, norm, 0.0)

    unit = direction / jnp.sqrt((direction * direction).sum(0))
    return jax.lax.fori_loop(0, 3, iterate, (unit, jnp.zeros(y.shape[1])))


def _adapt(flight: _Flight, y: Array, tol: tuple[Array, Array], known: Array) -> _Walk:
    """Walk along all intervals; ``known`` are the peaks of the states, negative where they are not known yet."""
    system, table, steps, y0, _, size = flight
    total, n = steps.gap.shape
    rows = jnp.arange(n)
    end = steps.start + steps.gap

    def body(walk: _Walk) -> _Walk:
        index = jnp.minimum(walk.at, total - 1)
        going = (walk.at < total) & (walk.code == OK)
        gap, moving, *events = _interval(steps, index, rows)
        left = jnp.where(gap > 0, end[index, rows] - walk.t, 0.0)
        # What is left of the interval in equal steps.
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

    def going_on(walk: _Walk) -> Array:
        return jnp.any((walk.at < total) & (walk.code == OK)) & (walk.iterations < 30 * (total + size))

    out = jax.lax.while_loop(going_on, body, _at_the_start(steps, y, size))
    return out._replace(code=jnp.where((out.at < total) & (out.code == OK), MAX_STEPS, out.code))


def _interval(steps: Steps, index: Array, rows: Array) -> tuple[Any, ...]:
    """Return of every row its interval: gap, what moves in it, and what happens at its end."""
    fixed = (steps.gap, steps.along[2], steps.fresh, steps.jump, steps.replace)
    out = jax.tree.map(lambda x: x[index, rows], fixed)
    steady = None if steps.steady is None else jnp.moveaxis(steps.steady, 1, 0)[:, index, rows]
    return (*out, steady)


def _error_ratio(walk: _Walk, moved: Array, error: Array, scale: Array) -> Array:
    """Return the largest error relative to state and scale; infinite where the step leads to no number."""
    scale = jnp.maximum(jnp.maximum(jnp.abs(walk.y), jnp.abs(moved)), scale) + _TINY
    ratio = jnp.max(jnp.abs(error) / scale, axis=0)
    return jnp.where(jnp.isfinite(moved).all(0) & jnp.isfinite(ratio), ratio, jnp.inf)


def _next_step(
    table: Tableau, asked: Array, h: Array, left: Array, ratio: Array, accept: Array, rate: Array
) -> tuple[Array, Array]:
    """Return the length of the next step, and whether it is stability that limits it."""
    factor = jnp.clip(_SAFETY * jnp.maximum(ratio, 1e-12) ** (-1.0 / table.order), _SLOWEST, _FASTEST)
    # Nothing is learned of the step from an interval that is much shorter.
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
