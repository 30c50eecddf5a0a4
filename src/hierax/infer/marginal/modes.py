"""Empirical Bayes estimates: the modes of all subjects by one batched damped Newton iteration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hierax.arguments import positive, whole
from hierax.infer.blocks import Blocks, PerSubject, Vectors, cholesky, solve_factored, value_gradient_hessian
from hierax.infer.result import Result
from hierax.options import Options

# With this many subjects or more, the last ones that have not converged go on alone, so that the others do not wait.
_MANY = 256
# They go on alone once they are at most one in this many.
_PART = 8
# A step that is longer than the reach by more than this factor comes from a Hessian that is singular up to rounding
# errors. Damping is raised before such a step is tried.
_LONG = 4.0
# How often, at most, damping is raised for one step.
_RAISES = 40
# A step shorter than this many rounding errors of the coordinates counts as no step at all.
_ROUNDING = 256
# Damping, relative to the diagonal of the Hessian, is raised to at least this; from below this it is lowered to 0.
_SLIGHT = 1e-3


@dataclasses.dataclass(frozen=True)
class Newton(Options):
    """Options of the search for each subject's mode, the inner iteration.

    Attributes
    ----------
    tol : float
        A subject has converged when its Newton decrement gᵀH⁻¹g (squared distance to the mode, in posterior SDs)
        is below it.
    max_iter : int
        Limit on iterations; a subject that reaches it is reported, and does not affect the others.
    reach : float
        Longest step, in prior SDs of each coordinate.

    Examples
    --------
    >>> hx.FOCE(newton=hx.Newton(max_iter=50)).newton.max_iter
    50
    """

    tol: float = 1e-20
    max_iter: int = 100
    reach: float = 3.0

    def __post_init__(self) -> None:
        positive("tol", self.tol)
        whole("max_iter", self.max_iter, 1)
        positive("reach", self.reach)


class Modes(NamedTuple):
    """Modes of all subjects, and how the search for them ended."""

    eta: Vectors
    value: Float[Array, " subject"]
    hessian: Blocks
    code: Int[Array, " subject"]
    iterations: Int[Array, ""]


class _State(NamedTuple):
    eta: Vectors
    value: Float[Array, " subject"]
    gradient: Vectors
    hessian: Blocks
    damping: Float[Array, " subject"]
    step: Vectors
    decrement: Float[Array, " subject"]
    definite: Bool[Array, " subject"]
    done: Bool[Array, " subject"]
    count: Int[Array, ""]
    reach: Vectors

    def part(self, rows: Int[Array, " row"]) -> _State:
        """Return the state of some subjects."""
        return _State(*(leaf if leaf.ndim == 0 else leaf[rows] for leaf in self))

    def merged(self, rows: Int[Array, " row"], part: _State) -> _State:
        """Return the state with the rows of some subjects replaced by those of ``part``."""
        pairs = zip(self, part, strict=True)
        return _State(*(jnp.maximum(mine, new) if mine.ndim == 0 else mine.at[rows].set(new) for mine, new in pairs))


def find_modes(
    function: PerSubject,
    starts: tuple[Vectors, ...],
    newton: Newton,
    scale: Vectors | None = None,
    subset: Callable[[Int[Array, " row"]], PerSubject] | None = None,
) -> Modes:
    """Minimise ``function`` over each subject's own coordinates.

    Every subject has its own damping (Levenberg), acceptance and convergence, so a bad start or a flat direction
    of one changes nothing for the others. Each begins at whichever of ``starts`` has the lowest value. No step is
    longer than ``newton.reach`` times ``scale`` (the prior SDs) in any coordinate: far out a model means nothing, and a
    search that lands there does not come back.

    ``subset(rows)`` returns the same function for some subjects. With many subjects, the few that take long go on
    without the others, because the cost of an iteration is proportional to the number of subjects in it.
    """
    # The first trip through the body evaluates at the start itself (a zero step from an infinite value), so that
    # the program and its derivatives are traced and compiled once.
    n, d = starts[0].shape
    if not d:
        return Modes(starts[0], function(starts[0]), jnp.zeros((n, 0, 0)), jnp.zeros(n, int), jnp.array(0))
    start = _best(function, starts)
    blocks = jnp.zeros((n, d, d))
    none, unknown = jnp.zeros(n, bool), jnp.full(n, jnp.inf)
    reach = jnp.full((n, d), jnp.inf) if scale is None else newton.reach * scale
    first = _State(
        start, unknown, start * 0, blocks, jnp.zeros(n), start * 0, unknown, ~none, none, jnp.array(0), reach
    )
    few = n // _PART if subset is not None and n >= _MANY else 0

    def going(state: _State) -> Array:
        return (jnp.sum(~state.done) > few) & (state.count <= newton.max_iter)

    last = jax.lax.while_loop(going, _iteration(function, newton), first)
    if few and subset is not None:
        last = _stragglers(subset, newton, last, few)
    stuck = ~jnp.isfinite(last.value)
    definite = cholesky(last.hessian)[1]
    code = jnp.where(last.done, Result.converged, Result.max_iterations)
    code = jnp.where(definite, code, Result.not_positive_definite)
    code = jnp.where(stuck, Result.non_finite, code)
    return Modes(last.eta, last.value, last.hessian, code, last.count)


def _stragglers(subset: Callable[[Int[Array, " row"]], PerSubject], newton: Newton, state: _State, few: int) -> _State:
    """Go on with the subjects that are not done, without the others, in groups of ``few``."""
    limit = newton.max_iter

    def alone(carry: tuple[_State, Array]) -> tuple[_State, Array]:
        state, tried = carry
        rows = jnp.argsort(state.done | tried, stable=True)[:few]
        part: _State = state.part(rows)
        # Subjects that are done already fill up the last group; they stand still.
        inner = jax.lax.while_loop(
            lambda s: jnp.any(~s.done) & (s.count <= limit), _iteration(subset(rows), newton), part
        )
        return state.merged(rows, inner), tried.at[rows].set(True)

    def left(carry: tuple[_State, Array]) -> Array:
        state, tried = carry
        return jnp.any(~state.done & ~tried)

    return jax.lax.while_loop(left, alone, (state, jnp.zeros_like(state.done)))[0]


def _iteration(function: PerSubject, newton: Newton) -> Callable[[_State], _State]:
    """Return one damped Newton iteration of all subjects of a state."""
    eps = jnp.finfo(jnp.result_type(float)).eps
    # A relative change of the value below this is rounding error, by which a step cannot be judged.
    slack = 64 * eps
    tol = max(newton.tol, float(eps) ** 2 * 1e4)

    def settle(state: _State) -> _State:
        damping, (step, decrement, definite, far) = _usable(state)
        step = step / jnp.maximum(far, 1.0)[:, None]
        state = state._replace(damping=damping)
        # A subject whose start has no finite value stands still: it is reported, and does not hold up the others.
        stuck = ~jnp.isfinite(state.value)
        # Where the curvature is immense, rounding of the coordinates alone keeps the decrement above any tolerance.
        still = (jnp.abs(step) <= _ROUNDING * eps * (1 + jnp.abs(state.eta))).all(-1)
        done = state.done | stuck | (definite & ((decrement <= tol) | still) & (state.damping == 0))
        return state._replace(step=step, decrement=decrement, definite=definite, done=done)

    def body(state: _State) -> _State:
        moving = ~state.done & state.definite
        trial = state.eta + jnp.where(moving[:, None], state.step, 0.0)
        value, gradient, hessian = value_gradient_hessian(function, trial)
        finite = jnp.isfinite(value) & jnp.isfinite(gradient).all(-1) & jnp.isfinite(hessian).all((-1, -2))
        room = slack * (1 + jnp.abs(state.value))
        better = finite & ((value <= state.value + room) | ~jnp.isfinite(state.value))
        accept = moving & better
        # Damping is lowered only where the quadratic model predicted the decrease. Otherwise accepted and refused steps
        # would alternate.
        foretold = 0.5 * jnp.maximum(state.decrement, 0.0)
        faithful = state.value - value >= 0.5 * foretold - room
        lower = jnp.where(state.damping < _SLIGHT, 0.0, state.damping * 0.1)
        kept = jnp.where(faithful, lower, state.damping)
        damping = jnp.where(accept, kept, _raise(state.damping))
        return settle(
            state._replace(
                eta=jnp.where(accept[:, None], trial, state.eta),
                value=jnp.where(accept, value, state.value),
                gradient=jnp.where(accept[:, None], gradient, state.gradient),
                hessian=jnp.where(accept[:, None, None], hessian, state.hessian),
                damping=jnp.where(state.done, state.damping, damping),
                count=state.count + 1,
            )
        )

    return body


def _best(function: PerSubject, starts: tuple[Vectors, ...]) -> Vectors:
    """Return each subject's best start."""
    return starts[0] if len(starts) == 1 else lowest(function, jnp.stack(starts))


def lowest(function: PerSubject, tries: Float[Array, "try subject coordinate"]) -> Vectors:
    """Return each subject's point with the lowest value; a point with the value NaN counts as infinitely high."""
    values = jnp.nan_to_num(jax.vmap(function)(tries), nan=jnp.inf)
    return jnp.take_along_axis(tries, jnp.argmin(values, axis=0)[None, :, None], axis=0)[0]


class _Direction(NamedTuple):
    """Damped Newton steps, their decrements, whether the damped Hessians are definite, and lengths in reaches."""

    step: Vectors
    decrement: Float[Array, " subject"]
    definite: Bool[Array, " subject"]
    far: Float[Array, " subject"]


def _usable(state: _State) -> tuple[Float[Array, " subject"], _Direction]:
    """Return damping with which the Hessian is definite and no step many times too long, and the directions.

    The damping is found here by factorisations alone, which cost next to nothing compared with the evaluation of the
    model that a refused step costs.
    """

    def bad(found: _Direction) -> Array:
        return ~state.done & jnp.isfinite(state.value) & ~(found.definite & (found.far <= _LONG))

    def raised(carry: tuple[Array, _Direction, Array]) -> tuple[Array, _Direction, Array]:
        damping, found, count = carry
        damping = jnp.where(bad(found), _raise(damping), damping)
        return damping, _direction(state, damping), count + 1

    first = (state.damping, _direction(state, state.damping), jnp.array(0))
    return jax.lax.while_loop(lambda c: bad(c[1]).any() & (c[2] < _RAISES), raised, first)[:2]


def _raise(damping: Float[Array, " subject"]) -> Float[Array, " subject"]:
    return jnp.maximum(damping * 8.0, _SLIGHT)


def _direction(state: _State, damping: Float[Array, " subject"]) -> _Direction:
    """Return the directions with a given damping."""
    diagonal = jnp.abs(jnp.diagonal(state.hessian, axis1=-2, axis2=-1))
    weight = jnp.maximum(diagonal, 1e-3 * diagonal.max(-1, keepdims=True)) + 1e-12
    damped = state.hessian + (damping[:, None] * weight)[..., None] * jnp.eye(weight.shape[-1])
    factor, definite = cholesky(damped)
    step = -solve_factored(factor, state.gradient)
    far = jnp.max(jnp.where(state.reach > 0, jnp.abs(step) / jnp.where(state.reach > 0, state.reach, 1.0), 0.0), -1)
    return _Direction(step, -(step * state.gradient).sum(-1), definite, far)
