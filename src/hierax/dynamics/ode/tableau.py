"""Runge-Kutta tableaus, taken from diffrax's solvers, and one step of all rows with a loop over the stages."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Field = Callable[[Array, Array], Array]


class Tableau(NamedTuple):
    """An explicit Runge-Kutta method; ``stages`` stages make the step, and one more the error estimate.

    ``stability`` is the length of its interval of absolute stability.
    """

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    error: np.ndarray
    order: int
    stages: int
    stability: float


# Names of diffrax's solvers by the name of the method.
_SOLVERS = {"tsit5": "Tsit5", "dopri8": "Dopri8"}
METHODS = tuple(_SOLVERS)


@functools.cache
def tableau(method: str) -> Tableau:
    """Return the coefficients of a method; diffrax is imported when they are first asked for."""
    import diffrax

    solver = getattr(diffrax, _SOLVERS[method])()
    table, order = solver.tableau, solver.order(None)
    stages = len(table.b_sol)
    a = np.zeros((stages, stages))
    for row, lower in enumerate(table.a_lower, start=1):
        a[row, : len(lower)] = lower
    # The last stage is the derivative at the end (first same as last): it serves only the error estimate.
    c = np.concatenate([[0.0], table.c])
    b = np.asarray(table.b_sol)
    return Tableau(a, b, c, np.asarray(table.b_error), order, stages - 1, _stability(a, b))


def _stability(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest x with |R(-x)| ≤ 1, where R(z) = 1 + z bᵀ(1 − z a)⁻¹1 is the stability function."""
    ones = np.ones(len(b))
    x = np.linspace(0.01, 12.0, 1200)
    growth = [abs(1 - v * b @ np.linalg.solve(np.eye(len(b)) + v * a, ones)) for v in x]
    return float(x[np.argmax(np.array(growth) > 1.0)])


def step(
    field: Field, table: Tableau, t: Float[Array, " row"], h: Float[Array, " row"], y: Float[Array, "state row"]
) -> Array:
    """Return the state after one step of each row."""
    return y + h * _weigh(table.b[: table.stages], _stages(field, table, t, h, y, table.stages))


def step_with_error(field: Field, table: Tableau, t: Array, h: Array, y: Array) -> tuple[Array, Array]:
    """Return the state after one step, and the estimate of its local error."""
    k = _stages(field, table, t, h, y, table.stages + 1)
    return y + h * _weigh(table.b, k), h * _weigh(table.error, k)


def _stages(field: Field, table: Tableau, t: Array, h: Array, y: Array, count: int) -> Array:
    """Return the stages, (stage, state, row), by a loop: unrolled, they take five times as long to compile."""

    def stage(k: Array, this: Any) -> tuple[Array, None]:
        index, a, c = this
        here = y + h * _weigh(a, k)
        return k.at[index].set(field(t + c * h, here)), None

    rows = (jnp.arange(count), jnp.asarray(table.a[:count, :count]), jnp.asarray(table.c[:count]))
    return jax.lax.scan(stage, jnp.zeros((count, *y.shape), y.dtype), rows)[0]


def _weigh(weights: Any, k: Array) -> Array:
    # XLA does not fuse a dot product with the operations around it, but it does fuse this sum.
    return (jnp.asarray(weights)[:, None, None] * k).sum(0)
