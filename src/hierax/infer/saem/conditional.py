"""Draws of each subject's random effects given its data, at fixed population parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hierax.data.population import Population
from hierax.data.sanitise import sanitise
from hierax.infer.blocks import Blocks, Vectors
from hierax.infer.run.own_number import own_key
from hierax.infer.saem.kernels import Kernels, begin, landscape, sweep
from hierax.program.density import Program
from hierax.program.read import cached

# Warm-up iterations, in which step lengths are adapted, and iterations from one kept draw to the next.
_WARM, _THIN = 100, 5
_KERNELS = Kernels()
# Largest number of values (draws × subjects × coordinates) that may be asked for, which bounds the memory.
_MAX_SIZE = 20_000_000


def conditional_draws(
    program: Program,
    pop: Population,
    params: Any,
    centre: Any,
    covariance: Any,
    draws: int,
    seed: int,
    own: int = 0,
    kernels: Kernels = _KERNELS,
) -> Float[np.ndarray, "chain draw subject coordinate"]:
    """Return draws of every subject's conditional distribution by 4 to 16 Markov chains, more for fewer subjects.

    Parameters
    ----------
    centre, covariance : arrays, (subject, coordinate[, coordinate])
        Approximate means and covariances of the distributions: modes and inverse Hessians, or moments of earlier draws.
    draws : int
        Draws per subject, all chains together.
    seed, own : int
        The user's seed, and a number below 2³² that tells this use of it from others (see ``own_number``).
    """
    chains = int(np.clip(-(-200 // max(len(pop), 1)), 4, 16))
    kept = -(-draws // chains)
    numbers = kept * chains * pop.n_subjects * max(centre.shape[-1], 1)
    if numbers > _MAX_SIZE:
        raise ValueError(
            f"{draws} draws of {len(pop)} subjects are {numbers:.1e} numbers, more than {_MAX_SIZE:.0e}. Ask for fewer."
        )
    function = cached(
        program,
        ("conditional", chains, kept, kernels),
        lambda: jax.jit(_sampler(program, chains, kept, kernels)),
    )
    key = jax.random.key_data(own_key(seed, own))
    out = function(pop, params, jnp.asarray(centre), jnp.asarray(covariance), key)
    return np.asarray(jnp.moveaxis(out, 0, 1))


def _sampler(program: Program, chains: int, kept: int, kernels: Kernels) -> Any:
    def sample(pop: Population, params: Any, centre: Vectors, covariance: Blocks, key_data: Array) -> Array:
        clean = sanitise(pop)
        key = jax.random.wrap_key_data(key_data)
        square = covariance + centre[:, :, None] * centre[:, None, :]
        land = landscape(program, clean, params, centre, square)
        first, key = jax.random.split(key)
        noise = jax.random.normal(first, (chains, *centre.shape))
        state = begin(centre + 0.5 * jnp.einsum("nij,cnj->cni", land.spread, noise))

        def density(eta: Vectors) -> Array:
            return program.log_joint(clean, params, eta)

        def warm(state: Any, along: Any) -> tuple[Any, None]:
            key, gain = along
            return sweep(density, state, land, key, kernels, gain), None

        def keep(state: Any, key: Any) -> tuple[Any, Array]:
            state, _ = jax.lax.scan(
                lambda s, k: (sweep(density, s, land, k, kernels, 0.0), None), state, jax.random.split(key, _THIN)
            )
            return state, state.eta

        warm_key, keep_key = jax.random.split(key)
        gains = jnp.maximum(1.0 / (1 + jnp.arange(_WARM) / 10), 0.05)
        state, _ = jax.lax.scan(warm, state, (jax.random.split(warm_key, _WARM), gains))
        return jax.lax.scan(keep, state, jax.random.split(keep_key, kept))[1]

    return sample
