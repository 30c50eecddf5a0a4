"""An initial value problem with doses, as solvers receive it, and the solution that they return."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hierax.data.population import Population
from hierax.dynamics.doses.boundaries import Boundaries, Order
from hierax.dynamics.doses.inputs import Inputs
from hierax.dynamics.ode.march import NO_STEADY_STATE, OK, STALE
from hierax.dynamics.ode.steady_state import Period, fixed_point, period
from hierax.dynamics.ode.steps import Mesh, Steps, main_line
from hierax.dynamics.ode.system import System

# The fields of ``Arguments`` that hold arrays.
_ARRAY_FIELDS = ("constant", "varying", "forcings", "transits")


@dataclasses.dataclass(frozen=True)
class Problem:
    """A system, its doses, and the population they belong to."""

    pop: Population
    system: System
    inputs: Inputs

    def frozen(self) -> Problem:
        """Return the problem with no derivative through any part of it."""
        stop: Callable[[Any], Any] = jax.lax.stop_gradient
        system = self.system
        parts = dataclasses.replace(
            system,
            consts=stop(system.consts),
            y0=stop(system.y0),
            breaks=stop(system.breaks),
            arguments=dataclasses.replace(
                system.arguments,
                **{name: stop(getattr(system.arguments, name)) for name in _ARRAY_FIELDS},
            ),
        )
        return Problem(stop(self.pop), parts, stop(self.inputs))

    def line(self, mesh: Mesh | None, order: Order | None = None) -> tuple[Boundaries, Steps]:
        """Return boundaries and steps of all subjects, without steady states."""
        return main_line(self.pop, self.system, self.inputs, mesh, order)

    @property
    def moves(self) -> bool:
        """Whether parameters move any boundary."""
        # Breaks are usually data, but they may depend on parameters.
        return (
            self.inputs.moves
            or self.system.breaks is not None
            or any(forcing.inputs.moves for forcing in self.system.arguments.forcings)
        )

    def period(self, mesh: Mesh | None, dosed: bool = True) -> Period:
        """Return one dosing interval of every steady state."""
        return period(self.pop, self.system, self.inputs, mesh, dosed)


class Solution(NamedTuple):
    """The result of a solver.

    Attributes
    ----------
    states : pytree
        Leaves (subject, time) or (subject, time, k); NaN for a subject that failed.
    code : int array, (subject,)
        0, or what went wrong; see ``march``.
    when : array, (subject,)
        Time at which it went wrong; NaN where nothing did, or where the time is not known.
    """

    states: Any
    code: Int[Array, " subject"]
    when: Float[Array, " subject"]


# A solver's way to carry a state along steps: (steps, state at the start, consts, y0) → states at the ends of steps,
# codes, and times of failure.
March = Callable[[Steps, Array, Any, Array], tuple[Array, Array, Array]]


class Steady(NamedTuple):
    """Amounts of the steady states, which of them replace the state, and for which subjects all were found."""

    amounts: Float[Array, "state subject dose"]
    replaces: Bool[Array, "subject dose"]
    found: Bool[Array, " subject"]


def steady_amounts(problem: Problem, march: March, mesh: Mesh | None) -> Steady:
    """Return the steady states at their records, found by a solver's ``march``."""
    kinds = jnp.asarray(problem.pop.events.steady)
    amounts, found = _one_interval(problem, march, mesh, dosed=True)
    if problem.pop.events.superposed:
        # SS 2: the difference that the doses make to a system at rest is added to the current state.
        rest, rested = _one_interval(problem, march, mesh, dosed=False)
        amounts = jnp.where(kinds == 2, amounts - rest, amounts)
        found = found & rested
    return Steady(amounts, (kinds == 1) & problem.inputs.mask, found)


def _one_interval(problem: Problem, march: March, mesh: Mesh | None, dosed: bool) -> tuple[Array, Array]:
    one = problem.period(mesh, dosed)
    system = problem.system

    def across(theta: Any, y: Array) -> Array:
        steps, consts, y0 = theta
        after = march(steps, y, consts, y0)[0][-1]
        # A state that only accumulates (an AUC) has no steady state. No derivative depends on it, so that it can start
        # from its initial value at the record.
        return after if system.cumulative is None else jnp.where(system.cumulative[:, None], y0, after)

    found, settled = fixed_point(across, (one.steps, system.consts, one.y0), one.y0, one.valid)
    n, q = one.chosen.shape
    blank = jnp.zeros((*found.shape[:1], *problem.inputs.mask.shape))
    values = jnp.where(one.valid, found, 0.0).reshape(-1, n, q)
    return blank.at[:, jnp.arange(n)[:, None], one.chosen].add(values), settled.reshape(n, q).all(1)


def with_steady(steps: Steps, line: Boundaries, steady: Steady) -> Steps:
    """Return the steps with the steady states at the boundaries to which they belong."""
    added = line.at_steady(steady.amounts)
    replaces = line.at_steady_flags(steady.replaces)
    return dataclasses.replace(steps, steady=jnp.moveaxis(added, 2, 0), replace=replaces.T)


def solve(
    problem: Problem, march: March, main: Mesh | None = None, phases: Mesh | None = None, order: Order | None = None
) -> tuple[Array, Array, Array]:
    """Return states (state, subject, time), codes and times of failure, by a solver's ``march``."""
    line, steps = problem.line(main, order)
    n = problem.pop.n_subjects
    code, when = jnp.zeros(n, int), jnp.full(n, jnp.nan)
    if problem.inputs.steady_states:
        steady = steady_amounts(problem, march, phases)
        steps = with_steady(steps, line, steady)
        code = jnp.where(steady.found, code, NO_STEADY_STATE)
    y0 = problem.system.y0
    along, failed, at = march(steps, y0, problem.system.consts, y0)
    states = jnp.take_along_axis(jnp.moveaxis(along, 0, -1), line.at_record[None], axis=-1)
    code = jnp.where(code == OK, failed, code)
    if order is not None:
        # A sorting that no longer holds belongs to a grid that was placed for other doses or records.
        code = jnp.where(line.in_order, code, STALE)
    return states, code, jnp.where(code == OK, jnp.nan, jnp.where(code == failed, at, when))


def _up_to_the_last_observation(pop: Population, states: Array, code: Array, when: Array) -> tuple[Array, Array]:
    """Return states and codes without failures after the last observation; states are NaN from there on."""
    times = jnp.asarray(pop.times)
    observed = jnp.asarray(pop.record_mask)
    # A population that was made to draw curves has no EVID: every point of it is needed.
    if "evid" in pop.records:
        observed &= jnp.asarray(pop.records["evid"]) == 0
    last = jnp.where(observed, times, -jnp.inf).max(-1)
    good = (jnp.isfinite(states) | (times > last[:, None])).all((0, 2))
    harmless = (code != OK) & (when >= last) & good
    states = jnp.where(harmless[:, None] & (times > last[:, None]), jnp.nan, states)
    return states, jnp.where(harmless, OK, code)


def finish(problem: Problem, states: Array, code: Array, when: Array) -> Solution:
    """Return the solution, with NaN for subjects that failed, because no number may be silently wrong."""
    states, code = _up_to_the_last_observation(problem.pop, states, code, when)
    states = jnp.where((code == OK)[:, None], states, jnp.nan)
    return Solution(problem.system.states.on_records(states), code, when)
