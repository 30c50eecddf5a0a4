"""Steady states of any system: the fixed point of the map over one dosing interval, exactly differentiable."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hierax.data.population import Population
from hierax.dynamics.doses.inputs import Inputs
from hierax.dynamics.ode.steps import Mesh, Steps
from hierax.dynamics.ode.system import Rows, System

# Limit of the Newton iterations; where they do not suffice, the steady state counts as not found.
_MOST_ITERATIONS = 60
# Change of the state over one dosing interval, relative to the state, below which it counts as steady.
_TOLERANCE = 1e-12
# Added to the size of a state that may be 0, which is a divisor.
_NOTHING = 1e-150


class Period(NamedTuple):
    """One dosing interval of every steady state, as rows of their own: (subject × steady state).

    Attributes
    ----------
    steps : Steps
        The interval, from the dose record on.
    y0 : array, (state, row)
        Initial states.
    valid : bool array, (row,)
        Which rows are steady states.
    chosen : int array, (subject, steady)
        Index of the dose that each row is.
    """

    steps: Steps
    y0: Array
    valid: Bool[Array, " row"]
    chosen: Array


def choose(inputs: Inputs) -> Array:
    """Return which doses of a subject are its steady states, (subject, steady)."""
    return jnp.argsort(~(inputs.periodic | inputs.constant), axis=1, stable=True)[:, : inputs.steady_states]


def period(pop: Population, system: System, inputs: Inputs, mesh: Mesh | None, dosed: bool = True) -> Period:
    """Return one dosing interval of every steady state; with ``dosed=False``, without its dose."""
    chosen = choose(inputs)
    n, q = chosen.shape

    def pick(values: Array) -> Array:
        return jnp.take_along_axis(values, chosen, axis=1).reshape(-1)

    valid = pick(inputs.periodic | inputs.constant)
    length = jnp.where(valid, pick(inputs.interval), 1.0)
    time = pick(inputs.time)
    ends, rank = _ends(system, inputs, mesh, pick, length)
    gap = jnp.diff(ends, axis=1, prepend=0.0)
    middle = ends - 0.5 * gap
    into = pick(inputs.compartment)[:, None] == jnp.asarray(system.numbers, int)
    bolus = jnp.where(pick(inputs.periodic & ~inputs.infused) & dosed, pick(inputs.amount), 0.0)
    jump = jnp.where(rank == 0, bolus[:, None], 0.0)[..., None] * into[:, None]
    rate = pick(inputs.rate)[:, None] * dosed * _running(inputs, pick, length, middle)
    rate = jnp.moveaxis(rate[..., None] * into[:, None], 1, 0)
    now = (time[:, None] + middle).T
    steps = Steps(
        start=(time[:, None] + ends - gap).T,
        gap=gap.T,
        rows=_rows(pop, system, inputs, chosen, now, rate, dosed),
        fresh=jnp.zeros(now.shape, bool),
        jump=jnp.moveaxis(jump, 1, 0),
    )
    return Period(steps, jnp.repeat(system.y0, q, axis=1), valid, chosen)


def _ends(
    system: System, inputs: Inputs, mesh: Mesh | None, pick: Callable[[Array], Array], length: Array
) -> tuple[Array, Array]:
    """Return the sorted phases at which steps end, (row, step), and their sorting; entry 0 is the dose's arrival."""
    marks = _marks(inputs, pick, length)
    for forcing in system.arguments.forcings:
        marks += _marks(forcing.inputs, pick, length)
    marks = [jnp.where(mark > 0, mark, mark + length) for mark in marks]
    if system.breaks is not None:
        time = pick(inputs.time)
        for column in jnp.repeat(system.breaks, len(time) // len(system.breaks), axis=0).T:
            phase = column - time
            marks.append(jnp.where((phase > 0) & (phase < length), phase, length))
    inner = [jnp.stack([*marks, length], axis=1)]
    if mesh is not None:
        inner.append(jnp.minimum(mesh.time.reshape(len(length), -1), length[:, None]))
    ends = jnp.concatenate(inner, axis=1)
    rank = jnp.argsort(jax.lax.stop_gradient(ends), axis=1)
    return jnp.take_along_axis(ends, rank, axis=1), rank


def _rows(pop: Population, system: System, inputs: Inputs, chosen: Array, now: Array, rate: Array, dosed: bool) -> Rows:
    """Return the arguments of every steady state, which are those of its record for the whole interval."""
    arguments = system.arguments
    n, q = chosen.shape
    record, segment = (
        jnp.take_along_axis(leaf, chosen, axis=1).reshape(-1) for leaf in (inputs.record, inputs.segment)
    )

    def repeat(leaf: Array) -> Array:
        return jnp.repeat(leaf, q, axis=0)

    def spread(leaf: Array) -> Array:
        return jnp.broadcast_to(leaf, (now.shape[0], *leaf.shape))

    value = [spread(repeat(leaf)[jnp.arange(n * q), record]) for leaf in arguments.varying]
    return Rows(
        constant=[repeat(leaf) for leaf in arguments.constant],
        value=value,
        slope=[0.0 * leaf for leaf in value] if pop.interpolation == "linear" else [],
        reference=now,
        now=now,
        segment=spread(segment),
        rate=rate,
        forcings=[
            dataclasses.replace(
                forcing,
                inputs=_alone(forcing.inputs, chosen, dosed),
                **{name: jax.tree.map(repeat, getattr(forcing, name)) for name in ("micro", "ka", "volume")},
            )
            for forcing in arguments.forcings
        ],
        transits=[],
    )


def _marks(inputs: Inputs, pick: Callable[[Array], Array], length: Array) -> list[Array]:
    """Return the phases at which a dose arrives and an infusion ends; 0 stands for the end of the interval."""
    late = pick(inputs.arrival - inputs.time)
    marks = [_phase(late, length)]
    if inputs.infusions:
        marks.append(_phase(late + pick(inputs.duration), length))
    return marks


def _phase(time: Array, length: Array) -> Array:
    return time - jax.lax.stop_gradient(jnp.floor(time / length)) * length


def _running(inputs: Inputs, pick: Callable[[Array], Array], length: Array, middle: Array) -> Array:
    """Return how many infusions of the regimen are running in the middle of each step, (row, step)."""
    if not inputs.infusions:
        return jnp.zeros_like(middle)
    late, duration = pick(inputs.arrival - inputs.time), pick(inputs.duration)

    def begun(since: Array) -> Array:
        return jnp.floor((middle - since[:, None]) / length[:, None])

    count = jax.lax.stop_gradient(begun(late) - begun(late + duration))
    count = jnp.where(pick(inputs.infused & inputs.periodic)[:, None], count, 0.0)
    return jnp.where(pick(inputs.constant)[:, None], 1.0, count)


def _alone(inputs: Inputs, chosen: Array, dosed: bool) -> Inputs:
    """Return a forcing's doses for every steady state, with that dose as the only one."""
    n, q = chosen.shape
    repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf, q, axis=0), inputs)
    alone = jnp.arange(inputs.mask.shape[1]) == chosen.reshape(-1)[:, None]
    return dataclasses.replace(repeated, mask=repeated.mask & alone & dosed)


Map = Callable[[Float[Array, "state row"]], Float[Array, "state row"]]


def fixed_point(across: Callable[[Any, Array], Array], theta: Any, guess: Array, valid: Array) -> tuple[Array, Array]:
    """Return the fixed point of the map of one interval, and which rows have one.

    Newton's method finds it without derivatives. Two more Newton steps then carry the derivatives with respect to
    ``theta``, which are exact up to the third order, and to any order for a linear system.
    """
    frozen = jax.lax.stop_gradient(theta)
    found = _search(lambda y: across(frozen, y), jax.lax.stop_gradient(guess), valid)
    found = jax.lax.stop_gradient(found)

    def polish(y: Array, _: None) -> tuple[Array, None]:
        return y + _newton(lambda y: across(theta, y), y, valid)[0], None

    y, _ = jax.lax.scan(polish, found, None, length=2)
    change = jnp.abs(jax.lax.stop_gradient(y) - found).max(0)
    settled = change <= 1e-8 * (jnp.abs(found).max(0) + _NOTHING)
    return y, settled | ~valid


class _Search(NamedTuple):
    """The search; ``after`` is the state one interval after the last good one, whose residual is ``residual``."""

    y: Array
    after: Array
    residual: Array
    done: Array
    count: Array


def _search(across: Map, y: Array, valid: Array) -> Array:
    def body(at: _Search) -> _Search:
        step, value = _newton(across, at.y, valid)
        residual = jnp.abs(value - at.y).max(0) / (jnp.abs(at.y).max(0) + _NOTHING)
        good = jnp.isfinite(residual) & (residual < at.residual)
        # Where a Newton step has not reduced the residual, the search goes on from the state one interval after the
        # last good one, because the regimen itself leads towards its steady state.
        new = jnp.where(good & jnp.isfinite(step).all(0), at.y + step, jnp.where(good, value, at.after))
        done = at.done | (good & (residual <= _TOLERANCE))
        return _Search(
            jnp.where(done, at.y, new),
            jnp.where(good, value, at.after),
            jnp.where(good, residual, jnp.inf),
            done,
            at.count + 1,
        )

    n = y.shape[1]
    first = _Search(y, y, jnp.full(n, jnp.inf), ~valid, jnp.array(0))
    return jax.lax.while_loop(lambda at: jnp.any(~at.done) & (at.count < _MOST_ITERATIONS), body, first).y


def _newton(across: Map, y: Array, valid: Array) -> tuple[Array, Array]:
    """Return the Newton step of F(y) = across(y) − y, for all rows at once."""
    size, n = y.shape
    basis = jnp.broadcast_to(jnp.eye(size)[:, :, None], (size, size, n))
    value, columns = jax.vmap(lambda e: jax.jvp(across, (y,), (e,)), out_axes=(None, 0))(basis)
    matrix = jnp.eye(size) - jnp.where(valid[:, None, None], jnp.transpose(columns, (2, 1, 0)), 0.0)
    gap = value - y
    step = jnp.linalg.solve(matrix, gap.T[..., None])[..., 0].T
    return jnp.where(valid, step, 0.0), value
