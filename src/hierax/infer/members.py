"""The guides of all subjects, and the space that each of them lives in."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.stats import norm

from hierax.data.population import Population
from hierax.infer.blocks import Blocks, Vectors
from hierax.program.density import Program

# Draws that say which space a subject's guide lives in, and how much wider than Laplace's they are.
_DRAWS, _WIDER = 512, 1.2
# Moments of fewer effective draws a coordinate than this are not to be trusted.
_ENOUGH = 10
# Where guides of values end, in SDs.
_END = 3.5


class Members(NamedTuple):
    """The guides.

    Attributes
    ----------
    own : pytree
        Their parameters.
    behind : float array, (subject, coordinate), or None
        Where a subject's guide is one of the values behind the program's flows, the unit that they are measured in,
        their SD over the population; 0 where it is one of the flows' normal coordinates. None where all are. Data that
        say much make values normal, data that say little coordinates.
    """

    own: Any
    behind: Array | None


def inward(
    program: Program, pop: Population, params: Any, behind: Array | None, phi: Vectors
) -> tuple[Vectors, Float[Array, " subject"]]:
    """Return the coordinates η of what a guide has drawn, and log |dφ/dη|."""
    if behind is None:
        return phi, jnp.zeros(len(phi))
    there = behind > 0
    unit = jnp.where(there, behind, 1.0)
    # Where φ is a coordinate, it is no value: its inverse is not used, but has to be a number with a slope.
    value = jnp.where(there, phi * unit, jax.lax.stop_gradient(program.values(pop, params, phi)))
    eta, log_det = program.from_values(pop, params, value)
    log_det = log_det - jnp.sum(jnp.log(unit), axis=-1)
    return jnp.where(there, eta, phi), jnp.where(there.any(-1), log_det, 0.0)


def roomy(program: Program) -> bool:
    """Whether a program has flows, and their values may be anything: positive ones are no place for a Gaussian."""
    return bool(program.flows) and all(program.sites.effects[name].real for name in program.flows)


def noise_of(key: Any, behind: Array | None, shape: tuple[int, ...]) -> tuple[Array, Float[Array, " subject"]]:
    """Return a guide's standard normal noise, (..., subject, coordinate), and log of the mass that it is cut to.

    Guides of values end at 3.5 SD: a flow's density may end in a cliff, and a normal distribution's tail that reaches
    beyond it would have an expected log density of any size. A bound it is still, for less than 5e-4 a coordinate.
    """
    noise = jax.random.normal(key, shape)
    if behind is None:
        return noise, jnp.zeros(shape[-2])
    there = (behind > 0).any(-1)
    cut = jax.random.truncated_normal(key, -_END, _END, shape)
    mass = shape[-1] * float(np.log1p(-2 * norm.sf(_END)))
    return jnp.where(there[:, None], cut, noise), jnp.where(there, mass, 0.0)


def choose(
    program: Program, pop: Population, params: Any, mode: Vectors, root: Blocks, key: Any
) -> tuple[Vectors, Blocks, Array]:
    """Return means, roots of covariances, and the space in which every subject's bound is higher before the first step.

    In coordinates the guide begins at the mode, with Laplace's covariance; in values with mean and covariance of draws
    around the mode, weighted by the joint density. Where too few of them count, coordinates stay.
    """
    unit = _unit(program, pop, params, mode, key)
    everywhere = jnp.broadcast_to(unit, mode.shape)

    def draw(key: Array) -> tuple[Array, Vectors]:
        noise = jax.random.normal(key, mode.shape)
        eta = mode + _WIDER * jnp.einsum("nij,nj->ni", root, noise)
        weight = program.log_joint(pop, params, eta) + 0.5 * jnp.sum(noise**2, -1)
        return jnp.where(jnp.isnan(weight), -jnp.inf, weight), program.values(pop, params, eta) / unit

    logs, values = jax.lax.map(draw, jax.random.split(key, _DRAWS), batch_size=16)
    weights = jax.nn.softmax(logs, axis=0)
    mean = jnp.einsum("mn,mni->ni", weights, values)
    centred = values - mean
    factor = jnp.linalg.cholesky(jnp.einsum("mn,mni,mnj->nij", weights, centred, centred))
    good = jnp.isfinite(factor).all((-1, -2)) & (1 / jnp.sum(weights**2, axis=0) > _ENOUGH * mode.shape[-1])

    def bound(mean: Vectors, root: Blocks, behind: Array) -> Float[Array, " subject"]:
        def once(key: Array) -> Array:
            noise, mass = noise_of(key, behind, mode.shape)
            eta, log_det = inward(program, pop, params, behind, mean + jnp.einsum("nij,nj->ni", root, noise))
            return program.log_joint(pop, params, eta) - log_det + 0.5 * jnp.sum(noise**2, -1) + mass

        each = jax.lax.map(once, jax.random.split(key, _DRAWS), batch_size=16)
        return each.mean(0) + jnp.linalg.slogdet(root)[1]

    # Both spaces by one function, compiled once.
    means, roots = jnp.stack([mode, mean]), jnp.stack([root, jnp.where(good[:, None, None], factor, root)])
    spaces = jnp.stack([jnp.zeros_like(everywhere), everywhere])
    here, there = jax.lax.map(lambda one: bound(*one), (means, roots, spaces))
    # A bound that is no number is no bound.
    better = jnp.nan_to_num(there, nan=-jnp.inf) > jnp.nan_to_num(here, nan=-jnp.inf)
    pick = (good & better & jnp.asarray(pop.subject_mask))[:, None]
    return jnp.where(pick, mean, mode), jnp.where(pick[..., None], factor, root), jnp.where(pick, unit, 0.0)


def _unit(program: Program, pop: Population, params: Any, mode: Vectors, key: Any) -> Float[Array, " coordinate"]:
    """Return the SD of what is behind flows over the population; 1 of everything else, whose units are its own."""
    noise = jax.random.normal(key, (_DRAWS // 8, *mode.shape))
    root = program.prior_root(pop, params, mode)
    draws = jax.vmap(lambda z: program.values(pop, params, jnp.einsum("nij,nj->ni", root, z)))(noise)
    real = jnp.asarray(pop.subject_mask)[:, None]
    mean = jnp.mean(draws, axis=(0, 1), where=real)
    spread = jnp.sqrt(jnp.mean((draws - mean) ** 2, axis=(0, 1), where=real))
    flows = [name in program.flows for name, site in program.sites.effects.items() for _ in range(site.size)]
    return jnp.where(jnp.array(flows) & (spread > 0), spread, 1.0)
