"""The frozen grid: an adaptive pilot places the steps once; one loop, with any derivative, then runs over them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from hierax.arguments import positive, whole
from hierax.dynamics.doses.boundaries import Order
from hierax.dynamics.ode.march import MAX_STEPS, NO_STEADY_STATE, NON_FINITE, OK, Pilot, fly, march
from hierax.dynamics.ode.problem import March, Problem, Solution, finish, solve, steady_amounts, with_steady
from hierax.dynamics.ode.steps import PADDING, Mesh, Steps
from hierax.dynamics.ode.tableau import METHODS, Tableau, tableau
from hierax.options import Options

# The local tolerance as a fraction of ``rtol``, because the errors of all steps add up. The embedded estimate is the
# error of the method of one order lower: if its tolerance is rtol^(p/(p+1)), the solution itself has an error near
# ``rtol``.
_LOCAL_SHARE = 0.3
# Where no fit has placed a grid: the least room for steps inside intervals, per subject; and the room that is not
# doubled any more, even if it is too small.
_LEAST_ROOM, _MOST_ROOM = 256, 4096


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Placement:
    """A frozen grid of one ODE, by subject; it travels with the population (``Population.grids``).

    Attributes
    ----------
    main : Mesh
        Times at which steps end, (subject, step).
    phases : Mesh or None
        The same inside the dosing interval of every steady state, as times since its record, (subject, steady, step).
    code, when : array, (subject,)
        What went wrong while the grid was placed (a code of ``march``), and at which time.
    count : int array, (subject,)
        How many steps a subject needs.
    limited : int array, (subject,)
        How many of these steps have the greatest length that stability allows.
    order : Order or None
        The sorting of boundaries and steps, where no parameter can change it.
    """

    main: Mesh
    phases: Mesh | None
    code: Int[Array, " subject"]
    when: Float[Array, " subject"]
    count: Int[Array, " subject"]
    limited: Int[Array, " subject"]
    order: Order | None = None

    def ordered(self, problem: Problem) -> Placement:
        """Return the placement with the sorting of all boundaries; unchanged if parameters move boundaries."""
        if problem.moves:
            return self
        line = problem.line(self.main)[0]
        return dataclasses.replace(self, order=Order(line.rank, line.at_record))

    def cropped(self, size: int) -> Placement:
        """Return the placement with room for ``size`` steps, and without a sorting."""
        phases = None if self.phases is None else Mesh(*(leaf[..., :size] for leaf in self.phases))
        return dataclasses.replace(self, main=Mesh(*(leaf[:, :size] for leaf in self.main)), phases=phases, order=None)


@dataclasses.dataclass(frozen=True)
class Grid(Options):
    """Explicit Runge-Kutta steps on a frozen grid (the default): fast, and smooth in every parameter.

    An adaptive pilot places the steps of each subject; the solution and all its derivatives then run on these steps,
    while doses, lagged arrivals and ends of infusions stay exact boundaries, wherever parameters move them. ``fit``
    places the grid at its start, watches the error and places it anew where needed. Where no grid has been placed, one
    is placed at every evaluation, from the values there.

    Parameters
    ----------
    rtol : float
        Tolerance of the solution, relative to the state plus ``floor`` times the state's peak in the subject.
    floor : float
        Below this fraction of its peak, the error of a state counts as absolute.
    method : {"tsit5", "dopri8"}
        Order 5, or order 8 for tight tolerances (1e-9 and below).
    steps : int, optional
        Room for steps inside intervals, where no grid was placed and the values are not known (inside ``jax.jit``). By
        default 256 or four for every boundary, whichever is more, and more for tighter tolerances. A subject that
        needs more has predictions of NaN, and a message says so.

    Examples
    --------
    >>> hx.Grid(1e-9, method='dopri8').rtol
    1e-09
    """

    rtol: float = 1e-6
    floor: float = 1e-3
    method: str = "tsit5"
    steps: int | None = None

    def __post_init__(self) -> None:
        positive("floor", self.floor)
        if self.steps is not None:
            whole("steps", self.steps, 1)
        if self.method not in METHODS:
            raise ValueError(f"Grid(method={self.method!r}) is not known. Use one of {list(METHODS)}.")
        if not 0 < self.rtol < 1:
            raise ValueError(f"Grid(rtol={self.rtol}) must be a small positive number, such as 1e-6.")

    @property
    def tableau(self) -> Tableau:
        """The method's coefficients."""
        return tableau(self.method)

    def solve(self, problem: Problem, placed: Placement | None) -> Solution:
        """Return the solution on a placed grid, or on one that is placed here."""
        return finish(problem, *self.states(problem, self.placed_here(problem) if placed is None else placed))

    def states(self, problem: Problem, placed: Placement, halves: bool = False) -> tuple[Array, Array, Array]:
        """Return states (state, subject, time), codes and times of failure."""
        along = self._along(problem, halves)
        states, code, when = solve(problem, along, placed.main, placed.phases, placed.order)
        bad = placed.code != OK
        return states, jnp.where(bad, placed.code, code), jnp.where(bad, placed.when, when)

    def _along(self, problem: Problem, halves: bool = False) -> March:
        """Return the function that carries states along steps by this solver's method."""

        def along(steps: Steps, y: Array, consts: Any, y0: Array) -> tuple[Array, Array, Array]:
            states = march(problem.system, self.tableau, steps, y, consts, y0, halves)
            good = jnp.isfinite(jax.lax.stop_gradient(states)).all(1)
            # The step that led to the first state that is not finite; the failure is dated to its start.
            first = jnp.argmin(good, axis=0)
            code = jnp.where(good.all(0), OK, NON_FINITE)
            return states, code, jnp.take_along_axis(steps.start, first[None], axis=0)[0]

        return along

    def placed_here(self, problem: Problem) -> Placement:
        """Return a grid for the current values; if these are known (not traced), with as many steps as they need."""
        frozen = problem.frozen()
        boundaries = jax.eval_shape(lambda: frozen.line(None)[1].gap).shape[0]
        # Tighter tolerances need more steps, by the order of the method.
        finer = max(1.0, (1e-6 / self.rtol) ** (1 / self.tableau.order))
        room = self.steps or power_of_two(int(finer * max(_LEAST_ROOM, 4 * boundaries)))
        leaves = jax.tree.leaves((frozen.pop, frozen.system.consts, frozen.system.y0, frozen.inputs))
        leaves += jax.tree.leaves(frozen.system.arguments.constant + frozen.system.arguments.varying)
        placed = self.place(frozen, room)
        if any(isinstance(leaf, Tracer) for leaf in leaves):
            return placed
        while np.any(np.asarray(placed.code) == MAX_STEPS) and room < _MOST_ROOM and self.steps is None:
            room *= 2
            placed = self.place(frozen, room)
        return placed.cropped(power_of_two(int(np.max(np.asarray(placed.count), initial=1))))

    def place(self, problem: Problem, room: int, tol: Any = None) -> Placement:
        """Return the grid for the values of a problem, which must carry no derivatives.

        Parameters
        ----------
        room : int
            Largest number of steps that a subject may have in addition to its boundaries.
        tol : float, optional
            Tolerance to place for; by default this grid's.
        """
        system, table = problem.system, self.tableau
        order = table.order
        tol = _LOCAL_SHARE * jnp.asarray(self.rtol if tol is None else tol)
        local = (tol ** (order / (order + 1)), tol)
        line, steps = problem.line(None)
        phases, code, when, count = None, 0, 0.0, 0
        if problem.inputs.steady_states:
            phases, found = self._place_phases(problem, room, local)
            n = problem.pop.n_subjects
            steady = steady_amounts(problem, self._along(problem), phases)
            steps = with_steady(steps, line, steady)
            code, when = found.code.reshape(n, -1).max(1), found.when.reshape(n, -1).max(1)
            code = jnp.where(steady.found, code, NO_STEADY_STATE)
            count = found.count.reshape(n, -1).max(1)
        pilot = fly(system, table, steps, system.y0, system.y0, local, self.floor, room)
        first = jnp.where(jnp.asarray(code) == OK, pilot.code, code)
        when = jnp.where(jnp.asarray(code) == OK, pilot.when, when)
        return Placement(pilot.mesh, phases, first, when, jnp.maximum(pilot.count, count), pilot.limited)

    def _place_phases(self, problem: Problem, room: int, tol: tuple[Array, Array]) -> tuple[Mesh, Pilot]:
        """Return the steps inside the dosing interval of every steady state, and what the pilot found there.

        Times are since the SS record. The pilot runs along one dosing interval twice: first from the initial state, for
        steps that are good enough to find the steady state; then from that steady state, for the steps that are kept.
        ``tol`` is the pair of tolerances that ``fly`` takes.
        """
        system = problem.system
        n = problem.pop.n_subjects
        one = problem.period(None)
        start = one.steps.start[0]

        def pilot(y: Array) -> Pilot:
            return fly(system, self.tableau, one.steps, y, one.y0, tol, self.floor, room)

        def shaped(mesh: Mesh) -> Mesh:
            time = jnp.where(mesh.segment == PADDING, jnp.inf, mesh.time - start[:, None])
            return Mesh(time.reshape(n, -1, room), mesh.segment.reshape(n, -1, room))

        found = pilot(one.y0)
        steady = steady_amounts(problem, self._along(problem), shaped(found.mesh))
        y = steady.amounts[:, jnp.arange(n)[:, None], one.chosen].reshape(one.y0.shape)
        # This state only decides where steps go, so it is harmless to use the initial state where the steady state is
        # not finite. ``place`` reports that no steady state was found.
        found = pilot(jnp.where(jnp.isfinite(y), y, one.y0))
        found = found._replace(code=jnp.where(one.valid, found.code, OK), count=jnp.where(one.valid, found.count, 0))
        return shaped(found.mesh), found


def power_of_two(size: int) -> int:
    """Return the smallest power of two that is at least ``size``, and at least 8."""
    return max(8, 1 << (size - 1).bit_length())
