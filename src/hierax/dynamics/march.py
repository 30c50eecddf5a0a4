"""Marching over given steps, and choosing them: the two loops of the frozen grid."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hierax.dynamics.steps import PADDING, Mesh, Steps
from hierax.dynamics.system import System
from hierax.dynamics.tableau import Tableau, step, step_with_error

# Codes of what may go wrong in a solve, by subject.
OK, MAX_STEPS, NON_FINITE, NO_STEADY_STATE, NOT_LINEAR, STALE = 0, 1, 2, 3, 4, 5
# The first pass of the pilot finds the peak of every state; it need not be exact.
_ROUGH = 1e-3
# Steps stay below this fraction of the longest stable one, so that the grid holds for faster subjects too.
_STABLE = 0.5
_SAFETY, _SLOWEST, _FASTEST = 0.9, 0.2, 5.0


def land(system: System, y0: Array, y: Array, fresh: Array, jump: Array, replace: Any, steady: Any) -> Array:
    """Let happen what happens at the end of a step: reset, steady state, dose."""
    y = jnp.where(fresh, y0, y)
    if replace is not None:
        y = jnp.where(replace, 0.0, y) + steady
    return y + system.place @ jump.T


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


def fly(
    system: System,
    table: Tableau,
    steps: Steps,
    y: Array,
    consts: Any,
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

    def passes(peak: Array, tol: Any) -> tuple[Array, _Walk]:
        walk = _adapt(system, table, steps, y, consts, y0, tol, floor, size, peak)
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


def _adapt(
    system: System,
    table: Tableau,
    steps: Steps,
    y: Array,
    consts: Any,
    y0: Array,
    tol: tuple[Array, Array],
    floor: float,
    size: int,
    known: Array,
) -> _Walk:
    total, n = steps.gap.shape
    rows = jnp.arange(n)
    end = steps.start + steps.gap
    # A scale for states that are 0, far enough from the smallest number for products with the tolerance.
    tiny = float(jnp.finfo(y.dtype).tiny) ** 0.5
    last = jnp.broadcast_to(end[-1][:, None], (n, size))

    def at(leaf: Any, index: Array) -> Any:
        return jax.tree.map(lambda x: x[index, rows], leaf)

    def body(walk: _Walk) -> _Walk:
        index = jnp.minimum(walk.at, total - 1)
        going = (walk.at < total) & (walk.code == OK)
        gap, moving, fresh, jump = at((steps.gap, steps.along[2], steps.fresh, steps.jump), index)
        replace = None if steps.replace is None else at(steps.replace, index)
        steady = None if steps.steady is None else jnp.moveaxis(steps.steady, 1, 0)[:, index, rows]
        left = jnp.where(gap > 0, end[index, rows] - walk.t, 0.0)
        # What is left of the interval in equal steps.
        count = jnp.maximum(jnp.ceil(left / walk.h - 1e-9), 1.0)
        h = left / count
        field = system.field(steps.rows_at(moving), consts)
        moved, error = step_with_error(field, table, walk.t, h, walk.y)
        wide = jnp.maximum(walk.peak, jnp.abs(moved))
        scale = jnp.where(known < 0, wide.max(0), floor * known)
        scale = jnp.maximum(jnp.maximum(jnp.abs(walk.y), jnp.abs(moved)), scale) + tiny
        ratio = jnp.max(jnp.abs(error) / scale, axis=0) / jnp.where(walk.dosed, tol[1], tol[0])
        ratio = jnp.where(jnp.isfinite(moved).all(0) & jnp.isfinite(ratio), ratio, jnp.inf)
        accept = going & (ratio <= 1.0)
        arrives = accept & (count == 1.0)
        factor = jnp.clip(_SAFETY * jnp.maximum(ratio, 1e-12) ** (-1.0 / table.order), _SLOWEST, _FASTEST)
        fastest = table.stability * _STABLE
        direction, rate = _fastest(field, walk.t, walk.y, walk.direction)
        # Nothing is learned of the step from an interval that is much shorter.
        free = ~accept | (h > 0.5 * walk.h) | (factor < 1)
        size_next = jnp.where(free & (left > 0), h * factor, walk.h)
        longest = fastest / (rate + tiny)
        limited = going & accept & (left > 0) & (size_next > longest) & (h > 0.5 * longest)
        size_next = jnp.minimum(size_next, longest)
        landed = land(system, y0, moved, fresh, jump, replace, steady)
        inside = accept & ~arrives
        full = inside & (walk.count >= size)
        slot = jnp.where(inside & ~full, walk.count, size)
        stuck = going & ~accept & (h <= 1e-13 * (jnp.abs(walk.t) + gap) + tiny)
        bad = going & (left == 0) & ~accept
        code = jnp.where(full, MAX_STEPS, jnp.where(stuck | bad, NON_FINITE, walk.code))
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
            limited=walk.limited + limited,
            peak=jnp.where(accept, jnp.maximum(wide, jnp.where(arrives, jnp.abs(landed), 0.0)), walk.peak),
            iterations=walk.iterations + 1,
        )

    def going_on(walk: _Walk) -> Array:
        return jnp.any((walk.at < total) & (walk.code == OK)) & (walk.iterations < 30 * (total + size))

    begin = steps.start[0]
    first = _Walk(
        t=begin,
        y=y,
        h=jnp.full(n, jnp.inf),
        at=jnp.zeros(n, int),
        time=last,
        segment=jnp.full((n, size), PADDING, steps.rows.segment.dtype),
        count=jnp.zeros(n, int),
        code=jnp.zeros(n, int),
        dosed=jnp.zeros(n, bool),
        direction=jnp.ones(y.shape),
        limited=jnp.zeros(n, int),
        peak=jnp.abs(y),
        iterations=jnp.array(0),
    )
    out = jax.lax.while_loop(going_on, body, first)
    return out._replace(code=jnp.where((out.at < total) & (out.code == OK), MAX_STEPS, out.code))
