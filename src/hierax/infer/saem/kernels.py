"""Markov chains of all subjects' random effects at once, at fixed population parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from hierax.data.population import Population
from hierax.infer.blocks import Blocks, Vectors, cholesky, push_basis
from hierax.options import Options
from hierax.program.density import Program

# Kinds of moves; the first one only evaluates the density where the chain stands.
_LOOK, _POPULATION, _COMPONENT, _BLOCK = range(4)
# Acceptance rates that step lengths are adapted to: those at which random walks of one coordinate, random walks of
# several and Langevin moves mix best (Roberts & Rosenthal 2001).
_GOAL_ONE, _GOAL_SEVERAL, _GOAL_GRADIENT = 0.44, 0.3, 0.574
# Change of a log step length per difference between acceptance rate and goal, at a gain of 1.
_GAIN = 0.5

LogDensity = Callable[[Vectors], Float[Array, " subject"]]


@dataclasses.dataclass(frozen=True)
class Kernels(Options):
    """How often an iteration makes each kind of move; every subject of every chain accepts or refuses for itself.

    Parameters
    ----------
    population : int
        Proposals from the random effects' prior.
    component : int
        Sweeps of random-walk moves of one coordinate at a time.
    block : int
        Random-walk moves of all coordinates at once, by the conditional covariance as estimated so far.
    gradient : int
        Langevin moves (MALA) with that covariance. Each costs a gradient; they are meant for many random effects.

    Examples
    --------
    >>> hx.Kernels(gradient=2).gradient
    2
    """

    population: int = 1
    component: int = 1
    block: int = 2
    gradient: int = 0

    def __post_init__(self) -> None:
        counts = dataclasses.astuple(self)
        if min(counts) < 0 or not sum(counts):
            raise ValueError(
                f"{self} makes no moves. Give every kind of move a count of 0 or more, and at least one kind a count "
                f"above 0."
            )

    def schedule(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return kind and coordinate of every move of an iteration except gradient moves."""
        moves = [(_LOOK, 0)] + [(_POPULATION, 0)] * self.population
        moves += [(_COMPONENT, k) for k in range(size)] * self.component + [(_BLOCK, 0)] * self.block
        kinds, coordinates = np.array(moves).T
        return kinds, coordinates


class Chains(NamedTuple):
    """The positions of the chains, and their adapted step lengths.

    Attributes
    ----------
    eta : array, (chain, subject, coordinate)
    log_density : array, (chain, subject)
    scale : array, (subject, coordinate + 2)
        Logs of the step lengths: of each coordinate in prior SDs, of block moves and of gradient moves.
    accepted : array, (4,)
        Share of accepted moves by kind: population, component, block, gradient.
    """

    eta: Float[Array, "chain subject coordinate"]
    log_density: Float[Array, "chain subject"]
    scale: Float[Array, "subject steps"]
    accepted: Float[Array, " kind"]


class Landscape(NamedTuple):
    """Each subject's prior mean and root, and the root of its conditional covariance, by which moves are proposed."""

    mean: Vectors
    root: Blocks
    spread: Blocks


def begin(eta: Float[Array, "chain subject coordinate"]) -> Chains:
    """Return chains that start at these random effects."""
    chains, n, d = eta.shape
    scale = jnp.concatenate([jnp.full((n, d), -0.7), jnp.zeros((n, 2))], axis=-1)
    return Chains(eta, jnp.full((chains, n), -jnp.inf), scale, jnp.zeros(4))


def sweep(
    log_density: LogDensity, chains: Chains, land: Landscape, key: PRNGKeyArray, kernels: Kernels, gain: Any
) -> Chains:
    """Make one iteration's moves; ``gain`` (0 to 1) is how fast step lengths adapt."""
    size = chains.eta.shape[-1]
    kinds, coordinates = kernels.schedule(size)
    sd = jnp.sqrt(jnp.einsum("nij,nij->ni", land.root, land.root))
    prior = _normal_density(land)
    tallies = jnp.zeros((3, 2))

    def move(carry: Any, along: Any) -> tuple[Any, None]:
        chains, tallies = carry
        kind, k, xi, chance = along
        unit = jnp.arange(size) == k
        length = jnp.exp(chains.scale)
        single = jnp.where(unit, length[:, :size] * sd, 0.0)[:, :, None] * jnp.eye(size)
        block = length[:, size, None, None] * land.spread
        matrix = jnp.select([kind == _POPULATION, kind == _COMPONENT, kind == _BLOCK], [land.root, single, block], 0.0)
        origin = jnp.where(kind == _POPULATION, land.mean, chains.eta)
        trial = origin + jnp.einsum("nij,cnj->cni", matrix, xi)
        density = _minus_infinity_for_nan(jax.vmap(log_density)(trial))
        ratio = density - chains.log_density
        fresh = prior(chains.eta) + 0.5 * jnp.sum(xi**2, axis=-1)
        ratio = ratio + jnp.where(kind == _POPULATION, fresh, 0.0)
        accept = (chance < ratio) | (kind == _LOOK)
        share = jnp.mean(accept, axis=0)
        goal = jnp.where(kind == _COMPONENT, _GOAL_ONE, _GOAL_SEVERAL)
        step = gain * _GAIN * (share - goal)[:, None]
        here = jnp.concatenate([unit & (kind == _COMPONENT), jnp.array([False, False])])
        here = here.at[size].set(kind == _BLOCK)
        tallies = tallies + jnp.where(jnp.arange(3)[:, None] == kind - 1, jnp.array([share.mean(), 1.0]), 0.0)
        chains = chains._replace(
            eta=jnp.where(accept[..., None], trial, chains.eta),
            log_density=jnp.where(accept, density, chains.log_density),
            scale=jnp.clip(chains.scale + jnp.where(here, step, 0.0), -7.0, 2.0),
        )
        return (chains, tallies), None

    # All random numbers are drawn at once, because for few subjects a call costs more than the numbers it draws.
    noise_key, chance_key, gradient_key = jax.random.split(key, 3)
    xi = _noise(noise_key, (len(kinds), *chains.eta.shape), chains.eta.dtype)
    along = (jnp.asarray(kinds), jnp.asarray(coordinates), xi, _log_chance(chance_key, xi.shape[:-1], xi.dtype))
    (chains, tallies), _ = jax.lax.scan(move, (chains, tallies), along)
    shares = tallies[:, 0] / jnp.maximum(tallies[:, 1], 1.0)
    chains = chains._replace(accepted=jnp.concatenate([shares, jnp.zeros(1)]))
    return _langevin(log_density, chains, land, gradient_key, kernels.gradient, gain) if kernels.gradient else chains


def _minus_infinity_for_nan(density: Array) -> Array:
    """Return log densities with −∞ in place of NaN.

    A chain at such a point accepts any proposal with a finite density; chains that never find one are reported.
    """
    return jnp.where(jnp.isnan(density), -jnp.inf, density)


def _noise(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return standard normal numbers of single precision, which suffices for proposals and is cheaper."""
    return jax.random.normal(key, shape, jnp.float32).astype(dtype)


def _log_chance(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return logs of uniform numbers; a move is accepted if its log density ratio exceeds one of them."""
    return -jax.random.exponential(key, shape, jnp.float32).astype(dtype)


def _normal_density(land: Landscape) -> Callable[[Any], Any]:
    """Return the log density of proposals from the prior, up to a constant."""
    inverse = jnp.linalg.inv(land.root)

    def density(eta: Any) -> Any:
        white = jnp.einsum("nij,cnj->cni", inverse, eta - land.mean)
        return -0.5 * jnp.sum(white**2, axis=-1)

    return density


def _langevin(
    log_density: LogDensity, chains: Chains, land: Landscape, key: PRNGKeyArray, count: int, gain: Any
) -> Chains:
    """Make moves along the gradient, preconditioned by the conditional covariance."""
    size = chains.eta.shape[-1]

    def slope(eta: Any) -> tuple[Array, Array]:
        """Return density and its gradient in whitened coordinates."""
        value, tangents = jax.vmap(lambda e: push_basis(log_density, e))(eta)
        gradient = jnp.einsum("nji,cjn->cni", land.spread, tangents)
        # A very long gradient would send proposals far outside the region where the model makes sense.
        norm = jnp.linalg.norm(gradient, axis=-1, keepdims=True)
        shorter = jnp.where(norm > 0, jnp.minimum(1.0, 3.0 * jnp.sqrt(size) / jnp.where(norm > 0, norm, 1.0)), 1.0)
        # Where the gradient is not finite the move is a random walk, which is valid without a gradient.
        return _minus_infinity_for_nan(value), jnp.where(jnp.isfinite(gradient), gradient * shorter, 0.0)

    def move(carry: Any, key: PRNGKeyArray) -> tuple[Any, Any]:
        chains, gradient = carry
        length = jnp.exp(chains.scale[:, size + 1 :])
        noise_key, accept_key = jax.random.split(key)
        xi = _noise(noise_key, chains.eta.shape, chains.eta.dtype)
        white = 0.5 * length**2 * gradient + length * xi
        trial = chains.eta + jnp.einsum("nij,cnj->cni", land.spread, white)
        density, after = slope(trial)
        forth = -0.5 * jnp.sum(xi**2, axis=-1)
        back = -0.5 * jnp.sum((white + 0.5 * length**2 * after) ** 2 / length**2, axis=-1)
        ratio = density - chains.log_density + back - forth
        accept = _log_chance(accept_key, ratio.shape, ratio.dtype) < ratio
        share = jnp.mean(accept, axis=0)
        chains = chains._replace(
            eta=jnp.where(accept[..., None], trial, chains.eta),
            log_density=jnp.where(accept, density, chains.log_density),
            scale=chains.scale.at[:, size + 1].add(gain * _GAIN * (share - _GOAL_GRADIENT)),
        )
        return (chains, jnp.where(accept[..., None], after, gradient)), share.mean()

    first = slope(chains.eta)[1]
    (chains, _), shares = jax.lax.scan(move, (chains, first), jax.random.split(key, count))
    return chains._replace(accepted=chains.accepted.at[3].set(shares.mean()))


def conditional_root(covariance: Blocks, root: Blocks) -> Blocks:
    """Return scaled factors of the conditional covariances; a small part of the prior's keeps them regular."""
    size = covariance.shape[-1]
    floor = jnp.einsum("nij,nkj->nik", root, root)
    factor, good = cholesky(covariance + 1e-3 * floor)
    step = 2.4 / np.sqrt(max(size, 1))
    return step * jnp.where(good[:, None, None], factor, 0.3 * root)


def landscape(program: Program, pop: Population, params: Any, centre: Vectors, square: Blocks) -> Landscape:
    """Return prior mean and root, and the root of the conditional covariance by averaged moments."""
    mean = program.reference(pop, params)
    root = program.prior_root(pop, params, mean)
    covariance = square - centre[:, :, None] * centre[:, None, :]
    return Landscape(mean, root, conditional_root(covariance, root))


__all__ = ["Chains", "Kernels", "Landscape", "begin", "conditional_root", "landscape", "sweep"]
