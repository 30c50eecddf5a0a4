"""Adaptive stepping between boundaries by diffrax: for stiff systems, and to judge solutions on frozen grids."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from hierax.arguments import positive, whole
from hierax.dynamics.ode.grid import Placement
from hierax.dynamics.ode.march import MAX_STEPS, OK, follow
from hierax.dynamics.ode.problem import Problem, Solution, finish, solve
from hierax.dynamics.ode.steps import Steps
from hierax.options import Options


def _implicit() -> Any:
    """Return Kvaerno5 with full Newton steps.

    At tight tolerances diffrax's default (chord) iterations fail to converge in stiff binding reactions, and every step
    is then rejected. Full Newton steps need more Jacobians, which cost next to nothing in systems of this size.
    """
    import diffrax
    import optimistix

    return diffrax.Kvaerno5(root_finder=diffrax.with_stepsize_controller_tols(optimistix.Newton)())


@dataclasses.dataclass(frozen=True)
class Adaptive(Options):
    """A diffrax solver with adaptive steps from boundary to boundary.

    It is meant for stiff systems, where an explicit method would need very many steps. Derivatives of any kind are
    available (``DirectAdjoint``), but steps are chosen anew at every evaluation: the objective of a fit is smooth only
    up to the tolerance, and takes longer than on a :class:`~hierax.Grid`. diffrax is imported when the first
    ``Adaptive`` is made.

    Parameters
    ----------
    solver : diffrax solver
        By default Kvaerno5, which is implicit, with full Newton steps.
    rtol, atol : float
        Tolerances of diffrax's step size controller.
    max_steps : int
        Largest number of steps between two boundaries. A subject that needs more has predictions of NaN and a log
        density of −∞, and a message says so.

    Examples
    --------
    >>> hx.Adaptive(rtol=1e-6).max_steps
    1024
    """

    solver: Any = dataclasses.field(default_factory=_implicit)
    rtol: float = 1e-8
    atol: float = 1e-10
    max_steps: int = 1024

    def __post_init__(self) -> None:
        positive("rtol", self.rtol)
        positive("atol", self.atol)
        whole("max_steps", self.max_steps, 1)

    def solve(self, problem: Problem, placed: Placement | None = None) -> Solution:
        """Return the solution; ``placed``, a frozen grid, is for other solvers."""
        return finish(problem, *self.states(problem))

    def states(self, problem: Problem) -> tuple[Array, Array, Array]:
        """Return states (state, subject, time), codes and times of failure."""
        return solve(problem, lambda steps, y, consts, y0: self._march(problem, steps, y, consts, y0))

    def _march(self, problem: Problem, steps: Steps, y: Array, consts: Any, y0: Array) -> tuple[Array, Array, Array]:
        import diffrax

        system = problem.system
        controller = diffrax.PIDController(rtol=self.rtol, atol=self.atol)

        def one(t0: Array, gap: Array, y: Array, rows: Any) -> tuple[Array, Array]:
            term = diffrax.ODETerm(lambda t, y, args: system.single(t, y, *args))
            found = diffrax.diffeqsolve(
                term,
                self.solver,
                t0,
                t0 + gap,
                None,
                y,
                (rows, consts),
                stepsize_controller=controller,
                saveat=diffrax.SaveAt(t1=True),
                adjoint=diffrax.DirectAdjoint(),
                max_steps=self.max_steps,
                throw=False,
            )
            assert found.ys is not None
            return found.ys[0], found.result == diffrax.RESULTS.successful

        def advance(start: Array, gap: Array, moving: Any, y: Array) -> tuple[Array, Array]:
            moved, good = jax.vmap(one, in_axes=(0, 0, -1, 0), out_axes=(-1, 0))(start, gap, y, steps.rows_at(moving))
            return moved, jnp.where(good, OK, MAX_STEPS)

        return follow(system, steps, y, y0, advance)
