"""Linear systems by matrix exponentials: exact between boundaries, however stiff."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from hierax.dynamics.ode.grid import Placement
from hierax.dynamics.ode.march import NOT_LINEAR, OK, follow
from hierax.dynamics.ode.problem import Problem, Solution, finish, solve
from hierax.dynamics.ode.steps import Steps
from hierax.dynamics.ode.system import System
from hierax.options import Options

# Relative error up to which the tangent of a vector field must predict the field elsewhere for it to count as linear:
# well above rounding.
_LINEAR_TOLERANCE = 1e-9


@dataclasses.dataclass(frozen=True)
class MatrixExponential(Options):
    """Exact solution of linear systems, y' = A y + b with A and b constant between boundaries.

    A and b are read off the vector field. There may be any number of compartments in any arrangement, and the system
    may be stiff; infusions, steady states and parameters that change from record to record are exact. For a system that
    is not linear, or that depends on time between boundaries, predictions are NaN, and a message says so.

    Examples
    --------
    >>> hx.MatrixExponential()
    MatrixExponential()
    """

    def solve(self, problem: Problem, placed: Placement | None = None) -> Solution:
        """Return the solution; ``placed``, a frozen grid, is for other solvers."""
        return finish(problem, *self.states(problem))

    def states(self, problem: Problem) -> tuple[Array, Array, Array]:
        """Return states (state, subject, time), codes and times of failure."""
        return solve(problem, lambda steps, y, consts, y0: _march(problem.system, steps, y, consts, y0))


def _march(system: System, steps: Steps, y: Array, consts: Any, y0: Array) -> tuple[Array, Array, Array]:
    def propagator(start: Array, gap: Array, moving: Any, y: Array) -> tuple[Array, Array]:
        """Return the matrix that carries (y, 1) over an interval, by row, and whether the system is linear there."""
        field = system.field(steps.rows_at(moving), consts)
        size, n = y.shape
        zero = jnp.zeros_like(y)
        basis = jnp.broadcast_to(jnp.eye(size)[:, :, None], (size, size, n))
        push = jax.vmap(lambda e: jax.jvp(lambda y: field(start, y), (zero,), (e,)), out_axes=(None, 0))
        offset, columns = push(basis)
        linear = _is_linear(field, start, gap, offset, columns, y)
        matrix = jnp.transpose(columns, (2, 1, 0))
        # Inputs may be large numbers in their units. They are scaled, so as not to add to the norm of the matrix.
        unit = jax.lax.stop_gradient(jnp.maximum(jnp.abs(offset).max(0), 1.0))
        inputs = (offset / unit).T
        full = jnp.zeros((n, size + 1, size + 1)).at[:, :size, :size].set(matrix).at[:, :size, size].set(inputs)
        out = jax.scipy.linalg.expm(full * gap[:, None, None])
        return out.at[:, :size, size].multiply(unit[:, None]), linear

    def advance(start: Array, gap: Array, moving: Any, y: Array) -> tuple[Array, Array]:
        matrix, linear = propagator(start, gap, moving, y)
        moved = (jnp.einsum("nij,jn->in", matrix[:, :-1, :-1], y).T + matrix[:, :-1, -1]).T
        # A state that is not finite says nothing about whether the field is linear.
        known = jnp.isfinite(jax.lax.stop_gradient(moved)).all(0)
        return moved, jnp.where(linear | ~known, OK, NOT_LINEAR)

    return follow(system, steps, y, y0, advance)


def _is_linear(field: Any, start: Array, gap: Array, offset: Array, columns: Array, y: Array) -> Array:
    """Return whether its tangent predicts the vector field at other states and times of the interval."""
    size = offset.shape[0]
    probe = jnp.broadcast_to(1.0 + jnp.arange(size)[:, None] / size, offset.shape)
    good = jnp.ones(offset.shape[1], bool)
    # The field is evaluated at a state of order one at the end of the interval, and at the current state and half of it
    # at times inside, where a field with a kink or a period may differ.
    for at, size_of in ((1.0, probe), (0.382, y), (0.618, 0.5 * y)):
        there = field(start + at * gap, size_of)
        # columns[k] is the derivative along state k.
        parts = jnp.einsum("ksn,kn->sn", jnp.abs(columns), jnp.abs(size_of)) + jnp.abs(offset)
        straight = jnp.einsum("ksn,kn->sn", columns, size_of) + offset
        good = good & (jnp.abs(there - straight) <= _LINEAR_TOLERANCE * parts + 1e-300).all(0)
    return jax.lax.stop_gradient(good)
