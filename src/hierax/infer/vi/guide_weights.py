"""Draws from the guides of population parameters and random effects, and importance weights that judge them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from hierax.data.population import Population
from hierax.data.sanitise import sanitise
from hierax.infer.vi import linked
from hierax.infer.vi.bound import Setting, log_volume, moved, place, read, standardised


def guide_draws(setting: Setting) -> Callable[..., tuple[Array, Array]]:
    """Return the function that draws from the guides, to be compiled.

    It takes (state, flat, design, pop, keys). For every key it returns one independent draw of the flat vector and of
    the random effects.
    """

    def run(state: Any, flat: Array, design: Array, pop: Population, keys: Array) -> tuple[Array, Array]:
        clean = sanitise(pop)
        size = (pop.n_subjects, len(setting.program.effect_names))

        def one(key: Any) -> tuple[Array, Array]:
            flat_key, key = jax.random.split(key)
            noise = jax.random.normal(flat_key, state.population["loc"].shape)
            here, away, member = _at(setting, state, flat, design, clean, noise)
            return here, linked.sample(setting.vi.guide, member, jax.random.normal(key, size)) - away

        return jax.lax.map(one, keys)

    return run


def guide_log_weights(setting: Setting) -> Callable[..., Array]:
    """Return the function of the log weights p(y, θ)/q(θ) of draws of the population parameters, to be compiled.

    It takes (state, flat, design, pop, noise, effects), where ``noise`` (draw, entry) and ``effects`` (repetition,
    subject, coordinate) are standard normal numbers. The random effects are integrated out by importance sampling with
    the guide's q(φ | θ), so that the weights show the misfit of the population's guide alone; weights of joint draws
    would vary by the misfits of all subjects' guides together. Every draw of θ uses the same ``effects``: the
    Monte-Carlo error of log p(y | θ) is then almost the same for all θ, and cancels.
    """
    vi, program = setting.vi, setting.program

    def run(state: Any, flat: Array, design: Array, pop: Population, noise: Array, effects: Array) -> Array:
        clean = sanitise(pop)
        real = jnp.asarray(pop.subject_mask)

        def one(z: Array) -> Array:
            here, away, member = _at(setting, state, flat, design, clean, z)
            params = setting.params_of(here)

            def ratio(xi: Array) -> Array:
                phi = linked.sample(vi.guide, member, xi)
                return program.log_joint(clean, params, phi - away) - linked.log_density(vi.guide, member, phi)

            logs = jax.vmap(ratio)(effects)
            by_subject = jax.nn.logsumexp(jnp.where(jnp.isnan(logs), -jnp.inf, logs), axis=0)
            marginal = jnp.sum(jnp.where(real, by_subject, 0.0))
            log_q = -0.5 * jnp.sum(z**2) - log_volume(state.population, z)
            return marginal - setting.penalty(here, clean) - log_q

        return jax.lax.map(one, noise)

    return run


def _at(setting: Setting, state: Any, flat: Array, design: Array, pop: Population, noise: Array) -> Any:
    here = place(setting, state.population, flat, noise)
    away = moved(setting, here, flat, design)
    standard = standardised(state.population, noise)
    return here, away, read(setting, state.guide, here, away, standard, pop)
