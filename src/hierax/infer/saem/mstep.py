"""SAEM's maximisation: exact for what belongs to the random effects, Newton steps for the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hierax.data.population import Population
from hierax.infer.blocks import Blocks, Vectors
from hierax.program.density import Program

# Longest step of a parameter in unconstrained space, and the largest number of Newton iterations for the parameters of
# Gaussian random effects, which start near their optimum.
_LONGEST = 1.0
_ITERATIONS = 5
# Newton's method ends after a step as short as this, because the next one would be below rounding errors.
_SETTLED = 1e-7


def shifted(design: Float[Array, "shift subject coordinate"], values: Float[Array, " shift"]) -> Vectors:
    """Return A θ, (subject, coordinate)."""
    return jnp.einsum("jnd,j->nd", design, values)


def solve_shift(
    design: Float[Array, "shift subject coordinate"],
    target: Vectors,
    root: Blocks,
    real: Bool[Array, " subject"],
) -> Float[Array, " shift"]:
    """Return the shifts by generalised least squares of ``target`` (E φ − prior mean) on the design."""
    factor = _lower(root)
    white = jax.vmap(lambda r, a: jax.scipy.linalg.solve_triangular(r, a, lower=True))
    matrix = white(factor, jnp.moveaxis(jnp.where(real[:, None], design, 0.0), 0, -1))
    right = white(factor, jnp.where(real[:, None], target, 0.0)[..., None])[..., 0]
    normal = jnp.einsum("ndj,ndl->jl", matrix, matrix)
    return jnp.linalg.lstsq(normal, jnp.einsum("ndj,nd->j", matrix, right))[0]


def _lower(root: Blocks) -> Blocks:
    """Return lower Cholesky factors of R Rᵀ."""
    return jnp.linalg.cholesky(jnp.einsum("nij,nkj->nik", root, root))


def one_subject(pop: Population) -> Population:
    """Return the first real subject of a population, inside traced code."""
    first = jnp.argmax(jnp.asarray(pop.subject_mask))[None]
    return pop[first]


def prior_loss(
    program: Program, pop: Population, params_of: Callable[[Array], Any], flat: Array, first: Vectors, second: Blocks
) -> Array:
    """Return E[−log prior] of the random effects, given their first and second moments by subject."""
    params = params_of(flat)
    mean = program.reference(pop, params)
    root = program.prior_root(pop, params, first)
    moment = second - first[:, :, None] * mean[:, None, :] - mean[:, :, None] * first[:, None, :]
    moment = moment + mean[:, :, None] * mean[:, None, :]
    factor = _lower(root)
    half = jax.scipy.linalg.solve_triangular(factor, moment, lower=True)
    white = jax.scipy.linalg.solve_triangular(factor, jnp.swapaxes(half, -1, -2), lower=True)
    trace = jnp.trace(white, axis1=-2, axis2=-1)
    log_det = jnp.log(jnp.abs(jnp.diagonal(factor, axis1=-2, axis2=-1))).sum(-1)
    value = log_det + 0.5 * trace
    return jnp.sum(jnp.where(jnp.asarray(pop.subject_mask), value, 0.0))


def minimise_by_newton(loss: Callable[[Array], Array], start: Array) -> Array:
    """Minimise a smooth function of a few numbers from a good start, by bounded Newton steps."""
    if not start.shape[0]:
        return start

    def going(state: tuple[Array, Array, Array]) -> Array:
        _, moved, count = state
        return (moved > _SETTLED) & (count < _ITERATIONS)

    def body(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, _, count = state
        step = newton_step(*gradient_and_hessian(loss, x))
        return x - step, jnp.max(jnp.abs(step)), count + 1

    return jax.lax.while_loop(going, body, (start, jnp.asarray(jnp.inf), jnp.asarray(0)))[0]


def gradient_and_hessian(loss: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
    """Return gradient and Hessian in forward mode; the gradient is a by-product of the Hessian."""
    slope = jax.jacfwd(loss)
    hessian, gradient = jax.jacfwd(lambda v: (slope(v),) * 2, has_aux=True)(x)
    return gradient, hessian


def newton_step(gradient: Array, hessian: Array, longest: Any = _LONGEST) -> Array:
    """Return the Newton step |H|⁻¹g, shortened so that no entry exceeds ``longest``.

    |H| is the (scaled) Hessian with the absolute values of its eigenvalues, so that the step goes downhill. Where the
    gradient or the Hessian is not finite the step is not either; callers check that.
    """
    spread = jnp.sqrt(jnp.abs(jnp.diagonal(hessian)))
    spread = jnp.where(spread > 0, spread, 1.0)
    values, vectors = jnp.linalg.eigh(hessian / spread[:, None] / spread[None, :])
    values = jnp.maximum(jnp.abs(values), 1e-4)
    step = vectors @ ((vectors.T @ (gradient / spread)) / values) / spread
    most = jnp.max(jnp.abs(step), initial=0.0)
    return step * jnp.where(most > longest, longest / jnp.where(most > 0, most, 1.0), 1.0)
