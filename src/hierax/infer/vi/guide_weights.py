"""Draws of a guide of population parameters and subjects, and the importance weights that judge it."""

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
    """Return the function of draws, to be compiled.

    It takes (state, flat, design, pop, keys) and returns by key the flat vector and the random effects, both from the
    guide: independent draws.
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

    It takes (state, flat, design, pop, noise, effects): standard normal numbers, (draw, entry) and (repetition,
    subject, coordinate). The random effects are integrated out by importance sampling with the guide's q(φ | θ), so
    that the weights show what is wrong with the population's guide however many subjects there are: weights of joint
    draws would differ by the misfit of all of them together. Every draw uses the same ``effects``: what their noise
    does to log p(y | θ) is then almost the same for all θ, and cancels.
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
