"""The observed information by Louis' formula, from draws of the random effects given the data."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hierax.data.population import Population
from hierax.data.sanitise import sanitise
from hierax.infer.mstep import shifted
from hierax.infer.roles import Roles
from hierax.program.density import Program
from hierax.program.parameters import Layout
from hierax.program.read import cached

# Draws whose second derivatives are taken: so many by subject in all.
_HESSIANS = 4000


def louis_information(
    program: Program,
    layout: Layout,
    pop: Population,
    flat: np.ndarray,
    active: np.ndarray,
    roles: Roles,
    draws: Float[np.ndarray, "draw subject coordinate"],
) -> tuple[Float[np.ndarray, "parameter parameter"], Float[np.ndarray, "parameter subject"]]:
    """Return −∂² log L and the subjects' scores ∂ log L_i, in the ``active`` entries.

    I = E[−∂²ℓ] − Σ_i Cov_i(∂ℓ_i) over the conditional distribution, ℓ_i the log density of data and φ = η + Aθ: with
    the shifted random effects held, less is missing and the formula less noisy than with η held (Louis 1982).
    """
    wanted = tuple(int(index) for index in active)
    functions = cached(
        program,
        ("louis", wanted, roles.shift.tobytes()),
        lambda: _derivatives(program, layout, wanted, roles),
    )
    scores_at, hessian_at = functions
    rows = np.flatnonzero(np.asarray(pop.subject_mask))
    count = len(draws)
    chosen = np.linspace(0, count - 1, int(np.clip(_HESSIANS // max(len(rows), 1), 4, count))).astype(int)
    args = (jnp.asarray(flat), jnp.asarray(roles.design), pop)
    scores = np.asarray(scores_at(jnp.asarray(draws), *args))[..., rows]
    complete = np.asarray(hessian_at(jnp.asarray(draws[chosen]), *args))
    centred = scores - scores.mean(0)
    missing = np.einsum("mpn,mqn->pq", centred, centred) / max(count - 1, 1)
    return -complete - missing, scores.mean(0)


def _derivatives(program: Program, layout: Layout, wanted: tuple[int, ...], roles: Roles) -> Any:
    shift, index = np.flatnonzero(roles.shift), np.asarray(wanted, int)

    def density(values: Array, eta: Array, flat: Array, design: Array, pop: Population) -> Array:
        at = flat.at[index].set(values)
        held = eta - shifted(design, at[shift] - flat[shift])
        return program.log_joint(pop, program.constrain(layout.unravel(at)), held)

    @jax.jit
    def scores(draws: Array, flat: Array, design: Array, pop: Population) -> Array:
        clean = sanitise(pop)
        seeds = jnp.eye(len(wanted), dtype=flat.dtype)

        def one(eta: Array) -> Array:
            function = lambda values: density(values, eta, flat, design, clean)  # noqa: E731
            return jax.lax.map(lambda seed: jax.jvp(function, (flat[index],), (seed,))[1], seeds)

        return jax.lax.map(one, draws)

    @jax.jit
    def hessian(draws: Array, flat: Array, design: Array, pop: Population) -> Array:
        clean = sanitise(pop)

        def one(eta: Array) -> Array:
            function = lambda values: density(values, eta, flat, design, clean).sum()  # noqa: E731
            return jax.jacfwd(jax.jacfwd(function))(flat[index])

        return jax.lax.map(one, draws).mean(0)

    return scores, hessian
