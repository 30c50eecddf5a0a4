"""Blocks of NUTS iterations of several chains at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from jaxtyping import Array
from numpyro.infer.hmc import hmc

from hierax.data.population import Population

if TYPE_CHECKING:
    from hierax.infer.mcmc.nuts import Sampler

# Iterations that run together; between two blocks progress is shown and a checkpoint may be written.
BLOCK = 50


def marginal_potential(
    evaluate: Callable[[Array, Any, Population], Any], flat: Array, eta: Any, pop: Population
) -> Array:
    """Return −log marginal likelihood of the flat vector; its gradient comes with its value, from forward passes."""

    @jax.custom_vjp
    def negative(flat: Array) -> Array:
        return evaluate(flat, eta, pop).value.sum()

    def forward(flat: Array) -> tuple[Array, Array]:
        out = evaluate(flat, eta, pop)
        return out.value.sum(), out.gradient

    negative.defvjp(forward, lambda gradient, g: (g * gradient,))
    return negative(flat)


class Draws(NamedTuple):
    """What each iteration of each chain records, (chain, iteration, ...)."""

    z: Any
    diverging: Array
    num_steps: Array
    energy: Array
    accept_prob: Array


def nuts_block(
    potential: Callable[[Any, Any], Array], sampler: Sampler
) -> tuple[Callable[[Any, Any, Array], Any], Callable[[Any, Any], tuple[Any, Draws]]]:
    """Return two functions to be compiled: the start, and a block of iterations of all chains.

    ``potential(z, data)`` is −log density; ``begin(z, data, keys)`` → state; ``advance(state, data)`` → state, draws.
    NumPyro's functional kernels do the work; everything that the density depends on is an argument, so that other data
    of the same shapes need no compilation.
    """
    init, sample = hmc(potential_fn_gen=lambda data: lambda z: potential(z, data), algo="NUTS")

    def begin_one(z: Any, data: Any, key: Array) -> Any:
        return init(
            z,
            sampler.warmup,
            target_accept_prob=sampler.target_accept,
            max_tree_depth=sampler.max_tree_depth,
            model_args=(data,),
            rng_key=jax.random.wrap_key_data(key),
        )

    def advance_one(state: Any, data: Any) -> tuple[Any, Draws]:
        # NumPyro's kernel keeps functions of its adaptation that the start sets, and those of one JAX trace cannot be
        # used in another. So the start is called in this trace too, and its result is not used.
        begin_one(state.z, data, jax.random.key_data(jax.random.key(0)))

        def step(state: Any, _: Any) -> tuple[Any, Draws]:
            new = sample(state, model_args=(data,))
            return new, Draws(new.z, new.diverging, new.num_steps, new.energy, new.accept_prob)

        return jax.lax.scan(step, state, None, length=BLOCK)

    if sampler.chain_method == "vectorized":
        return jax.vmap(begin_one, (0, None, 0)), jax.vmap(advance_one, (0, None))
    # One chain after the other: no chain has to wait for another one that needs more steps per iteration.
    return (
        lambda z, data, keys: jax.lax.map(lambda pair: begin_one(pair[0], data, pair[1]), (z, keys)),
        lambda state, data: jax.lax.map(lambda one: advance_one(one, data), state),
    )
