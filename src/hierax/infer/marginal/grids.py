"""The frozen grids of a program's ODEs: placing them, and watching their error."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hierax.data.padding import bucket_size
from hierax.data.population import Population
from hierax.data.sanitise import sanitise
from hierax.dynamics.ode.grid import Grid, Placement
from hierax.dynamics.ode.march import MAX_STEPS, OK
from hierax.dynamics.ode.problem import finish
from hierax.errors import tell
from hierax.program.density import Program
from hierax.program.read import cached
from hierax.program.trace import Alone

# The number of steps for which the placing of grids is compiled. It is enough for most models, so that it is compiled
# only once; where it is too small, it is raised.
_ROOM = 256
# The number of steps beyond which it is not raised any more.
_LARGEST_ROOM = 4096
# During a search a grid is placed anew when its error has grown to more than this multiple of the tolerance.
SLACK = 3.0
# Grids are placed for this part of the tolerance, which leaves room for the parameters to move.
_MARGIN = 0.3
# A grid has room for this multiple of the number of steps that are needed.
_SPARE = 1.1
# Stiffness is not reported for a subject that takes no more steps than this, because it then costs nothing.
_STIFF = 200
# The largest error that the first grids of a fit may have, as a part of the tolerance.
_FIRST_ERROR = 0.7


class _Placing(Alone):
    """Places the grid of every solve that has one, and solves on it."""

    def __init__(self, room: int, tol: Mapping[str, Any]):
        super().__init__(None)
        self.room, self.tol = room, tol
        self.found: dict[str, Placement] = {}

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "ode" and isinstance(msg["solver"], Grid):
            problem, _ = msg["args"]
            placed = msg["solver"].place(problem.frozen(), self.room, self.tol[msg["name"]])
            self.found[msg["name"]] = placed
            msg["args"] = (problem, placed)


class _Ordering(Alone):
    """Sorts the boundaries and steps of every placed grid once for all, where no parameter moves any of them."""

    def __init__(self, placed: Mapping[str, Placement]):
        super().__init__(None)
        self.placed = dict(placed)

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "ode" and msg["name"] in self.placed:
            placed = self.placed[msg["name"]].ordered(msg["args"][0].frozen())
            self.placed[msg["name"]] = placed
            msg["args"] = (msg["args"][0], placed)


class _Judging(Alone):
    """Solves on the placed grid and with every step halved, and notes by how much the two differ."""

    def __init__(self) -> None:
        super().__init__(None)
        self.errors: dict[str, Float[Array, " subject"]] = {}

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "ode" and isinstance(msg["solver"], Grid):
            problem, placed = msg["args"]
            fine, fine_code, _ = msg["solver"].states(problem, placed, halves=True)
            here, code, when = msg["solver"].states(problem, placed)
            error = relative_error(here, fine, msg["solver"].floor)
            # A subject without a solution on either grid counts as having no error, so that it does not shorten
            # everybody's steps.
            self.errors[msg["name"]] = jnp.where((code != OK) & (fine_code != OK), 0.0, error)
            msg["value"] = finish(problem, here, code, when)


def relative_error(found: Array, right: Array, floor: float) -> Float[Array, " subject"]:
    """Return the largest error of each subject over states and times, relative to |state| + floor·peak."""
    size = jnp.abs(right)
    scale = size + floor * size.max(-1, keepdims=True)
    error = jnp.where(scale > 0, jnp.abs(found - right) / jnp.where(scale > 0, scale, 1.0), 0.0)
    return error.max((0, 2))


@dataclasses.dataclass
class Grids:
    """The grids of one fit.

    Attributes
    ----------
    tol : dict
        Tolerance for which the grid of each ODE is placed.
    error : dict
        The largest error of each ODE when it was last computed.
    placings : int
        How often grids were placed.
    sizes : list of int
        The numbers of steps for which the objective was compiled; the last one is in use.
    """

    program: Program
    solvers: dict[str, Grid]
    tol: dict[str, float] = dataclasses.field(default_factory=dict)
    error: dict[str, float] = dataclasses.field(default_factory=dict)
    placings: int = 0
    sizes: list[int] = dataclasses.field(default_factory=list)
    room: int = _ROOM
    warned: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.tol = {name: _MARGIN * solver.rtol for name, solver in self.solvers.items()}

    def place(self, pop: Population, params: Any, eta: Any) -> Population:
        """Return the population with grids for these values."""
        if not self.sizes:
            eta = self._calibrate(pop, params, eta)
        found = self._find(pop, params, eta)
        need = _need(found)
        if need > self.sizes[-1]:
            self.sizes.append(self._size(need))
        self.placings += 1
        self._warn_of_stiffness(pop, found)
        return self._with(pop, params, eta, found, self.sizes[-1])

    def resize(self, pop: Population, params: Any, eta: Any) -> None:
        """Give grids the number of steps that these random effects need."""
        size = self._size(_need(self._find(pop, params, eta)))
        if size < self.sizes[-1]:
            self.sizes.append(size)

    def _calibrate(self, pop: Population, params: Any, eta: Any) -> Array:
        """Find the tolerance and the number of steps that the fit will need, before anything large is compiled.

        Returns the random effects to place the first grids at.
        """
        hard, need, found = self._hardest(pop, params, eta)
        rough = self._with(pop, params, eta, found, self._size(need))
        if self.look(rough, params, [eta]) > _FIRST_ERROR:
            self.tighten(_FIRST_ERROR)
            hard, need, _ = self._hardest(pop, params, eta)
        self.sizes.append(self._size(need))
        return hard

    def _hardest(self, pop: Population, params: Any, eta: Any) -> tuple[Array, int, dict[str, Placement]]:
        """Return the random effects around ``eta`` that need most steps, how many, and the grids at ``eta`` itself.

        A search for modes passes through other random effects than those that it starts from. On steps that are too
        long for these the solution is unstable, and has spurious modes that take long to find. And a fit that needs
        more steps than there is room for has to compile again.
        """
        rng = np.random.default_rng(0)
        draws = [*np.array([0.0, -1.5, 1.5])[:, None, None] * np.ones(np.shape(eta))]
        draws += [*rng.normal(size=(3, *np.shape(eta)))]
        # Without random effects all draws are the same.
        tries = [self._shifted(pop, params, eta, draw) for draw in draws[: len(draws) if np.size(eta) else 1]]
        found = [self._find(pop, params, at) for at in tries]
        counts = [np.max([np.asarray(one.count) for one in each.values()], axis=0) for each in found]
        most = jnp.asarray(np.argmax(counts, axis=0))
        hard = jnp.take_along_axis(jnp.stack(tries), most[None, :, None], axis=0)[0]
        return hard, max(int(np.max(counts)), 1), found[0]

    def _size(self, need: int) -> int:
        """Return the number of steps to compile for, where ``need`` steps are needed."""
        return min(bucket_size(int(_SPARE * need) + 2), self.room)

    def _with(self, pop: Population, params: Any, eta: Any, found: Mapping[str, Placement], size: int) -> Population:
        grids = {name: one.cropped(size) for name, one in found.items()}
        grids = self._orderer()(pop_without(pop), params, jnp.asarray(eta), grids)
        return dataclasses.replace(pop, grids={**pop.grids, **grids})

    def _find(self, pop: Population, params: Any, eta: Any) -> dict[str, Placement]:
        while True:
            found = self._placer(self.room)(pop_without(pop), params, jnp.asarray(eta), self.tol)
            short = any(np.any(np.asarray(one.code) == MAX_STEPS) for one in found.values())
            if not short or self.room >= _LARGEST_ROOM:
                return found
            self.room *= 4

    def _warn_of_stiffness(self, pop: Population, found: Mapping[str, Placement]) -> None:
        for name, one in found.items():
            count, limited = np.asarray(one.count), np.asarray(one.limited)
            stiff = np.asarray(pop.subject_mask) & (count > _STIFF) & (limited > 0.6 * count)
            if not stiff.any() or name in self.warned:
                continue
            self.warned.append(name)
            row = int(np.argmax(np.where(stiff, count, 0)))
            subject = pop.ids[row] if isinstance(pop.ids, tuple) and row < len(pop.ids) else row
            tell(
                f"ODE '{name}' looks stiff: {limited[row]} of the {count[row]} steps of subject {subject} are as long "
                f"as the stability of an explicit method allows, not as the accuracy does. If the fit is slow, use "
                f"solver=hx.Adaptive(), which is implicit, or replace the fast reaction by its equilibrium.",
            )

    def _shifted(self, pop: Population, params: Any, eta: Any, side: np.ndarray) -> Array:
        """Return the random effects moved by ``side`` prior SDs; unknown ones start from the reference point."""

        def shift(pop: Population, params: Any, eta: Array, side: Array) -> Array:
            clean = sanitise(pop)
            at = jnp.where(jnp.isnan(eta), self.program.reference(clean, params), eta)
            return at + side * self.program.prior_scale(clean, params, at)

        return cached(self.program, "shift", lambda: jax.jit(shift))(pop_without(pop), params, jnp.asarray(eta), side)

    def _orderer(self) -> Any:
        def order(pop: Population, params: Any, eta: Array, placed: dict[str, Placement]) -> dict[str, Placement]:
            ordering = _Ordering(placed)
            with ordering:
                self._run(pop, params, eta)
            return ordering.placed

        return cached(self.program, "order", lambda: jax.jit(order))

    def _placer(self, room: int) -> Any:
        def place(pop: Population, params: Any, eta: Array, tol: dict[str, Array]) -> dict[str, Placement]:
            placing = _Placing(room, tol)
            with placing:
                self._run(pop, params, eta)
            return placing.found

        return cached(self.program, ("place", room), lambda: jax.jit(place))

    def _run(self, pop: Population, params: Any, eta: Array) -> None:
        clean = sanitise(pop)
        reference = self.program.reference(clean, params)
        self.program.run(clean, params, jnp.where(jnp.isnan(eta), reference, eta))

    def judge(self, pop: Population, params: Any, eta: Any) -> dict[str, Float[np.ndarray, " subject"]]:
        """Return the relative error of every subject for each ODE, found by halving all steps."""

        def judge(pop: Population, params: Any, eta: Array) -> dict[str, Array]:
            judging = _Judging()
            with judging:
                self._run(pop, params, eta)
            real = jnp.asarray(pop.subject_mask)
            return {name: jnp.where(real, error, 0.0) for name, error in judging.errors.items()}

        function = cached(self.program, "judge", lambda: jax.jit(judge))
        return {name: np.asarray(error) for name, error in function(pop, params, jnp.asarray(eta)).items()}

    def look(self, pop: Population, params: Any, etas: list[Any]) -> float:
        """Return the largest error at some random effects, in units of the tolerance; remember the errors."""
        self.error = dict.fromkeys(self.solvers, 0.0)
        for eta in etas:
            for name, error in self.judge(pop, params, eta).items():
                # An error that is NaN counts as infinite.
                worst = float(np.max(np.nan_to_num(error, nan=np.inf), initial=0.0))
                self.error[name] = max(self.error[name], worst)
        return max(self.error[name] / solver.rtol for name, solver in self.solvers.items())

    def tighten(self, goal: float = 1.0) -> None:
        """Lower the tolerance of placing for each ODE whose error is above ``goal`` times what its solver asks for."""
        for name, solver in self.solvers.items():
            excess = min(self.error[name] / solver.rtol / goal, 1e4)
            if excess > 1:
                self.tol[name] = max(self.tol[name] / (2.0 * excess), 1e-14)


def _need(found: Mapping[str, Placement]) -> int:
    """Return the largest number of steps that any subject needs for any ODE."""
    return max(int(np.max(np.asarray(one.count), initial=1)) for one in found.values())


def pop_without(pop: Population) -> Population:
    """Return the population without any grid."""
    return dataclasses.replace(pop, grids={})


def grids_of(program: Program) -> Grids | None:
    """Return the grids of a program; None where it has no ODE that needs one."""
    messages = program.sites.messages
    solvers = {name: messages[name]["solver"] for name in program.sites.odes}
    solvers = {name: solver for name, solver in solvers.items() if isinstance(solver, Grid)}
    return Grids(program, solvers) if solvers else None
