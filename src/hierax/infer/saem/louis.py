"""The observed information by Louis' formula, from draws of the random effects given the data."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hierax.data.population import Population
from hierax.data.sanitise import sanitise
from hierax.infer.saem.mstep import shifted
from hierax.infer.saem.roles import Roles
from hierax.program.density import Program
from hierax.program.parameters import Layout
from hierax.program.read import cached

# Number of draws that one call of the compiled function takes.
CHUNK = 64


class Louis(NamedTuple):
    """The observed information, its scores, and its Monte-Carlo error.

    Attributes
    ----------
    information : array, (parameter, parameter)
        −∂² log L.
    scores : array, (parameter, subject)
        ∂ log L_i of real subjects.
    error : array, (parameter,)
        Relative Monte-Carlo error of the standard errors (square roots of the inverse's diagonal).
    """

    information: Float[np.ndarray, "parameter parameter"]
    scores: Float[np.ndarray, "parameter subject"]
    error: Float[np.ndarray, " parameter"]


class Parts(NamedTuple):
    """Log density of data and random effects at each draw, and its first and second derivatives in the parameters.

    Attributes
    ----------
    joint : array, (draw, subject)
    scores : array, (draw, parameter, subject)
    complete : array, (draw, parameter, parameter, subject)
    """

    joint: np.ndarray
    scores: np.ndarray
    complete: np.ndarray


class Terms:
    """The derivatives that Louis' formula takes, of one program at one estimate.

    They are derivatives of ℓ_i, the log density of data and φ = η + Aθ, at fixed φ: less information is then missing
    than at fixed η, and the formula is less noisy.
    """

    def __init__(
        self, program: Program, layout: Layout, pop: Population, flat: np.ndarray, active: np.ndarray, roles: Roles
    ):
        wanted = tuple(int(index) for index in active)
        self._function = cached(
            program,
            ("louis", wanted, roles.shift.tobytes()),
            lambda: _derivatives(program, layout, wanted, roles),
        )
        self._args = (jnp.asarray(flat), jnp.asarray(roles.design), pop)
        self._rows = np.flatnonzero(np.asarray(pop.subject_mask))

    def at(self, draws: Float[np.ndarray, "draw subject coordinate"]) -> Parts:
        """Return the parts at any number of draws."""
        count = len(draws)
        padded = np.concatenate([draws, np.repeat(draws[:1], -count % CHUNK, axis=0)])
        found = [
            [np.asarray(part)[..., self._rows] for part in self._function(jnp.asarray(chunk), *self._args)]
            for chunk in padded.reshape(-1, CHUNK, *draws.shape[1:])
        ]
        return Parts(*(np.concatenate(parts)[:count] for parts in zip(*found, strict=True)))


def louis_information(parts: Parts, weights: Float[np.ndarray, "group draw subject"]) -> Louis:
    """Return −∂² log L = E[−∂²ℓ] − Σ_i Cov_i(∂ℓ_i) over the conditional distributions (Louis 1982).

    Parameters
    ----------
    parts : Parts
        The parts of all draws, one group after the other.
    weights : array, (group, draw, subject)
        Weights of the draws, which sum to one in every group. Groups are independent (separate chains or separate
        samples), so that the differences between them show the Monte-Carlo error, autocorrelation included.
    """
    groups, count, _ = weights.shape
    scores = parts.scores.reshape(groups, count, *parts.scores.shape[1:])
    complete = parts.complete.reshape(groups, count, *parts.complete.shape[1:])
    mean = np.einsum("gmn,gmpn->pn", weights, scores) / groups
    centred = scores - mean
    missing = np.einsum("gmn,gmpn,gmqn->gpq", weights, centred, centred, optimize=True)
    each = -np.einsum("gmn,gmpqn->gpq", weights, complete, optimize=True) - missing
    information = each.mean(0)
    # Jackknife: the SEs without each group in turn.
    others = (information * groups - each) / (groups - 1)
    logs = np.log(np.stack([_errors(one) for one in others]))
    error = np.sqrt((groups - 1) / groups * ((logs - logs.mean(0)) ** 2).sum(0))
    return Louis(information, mean, error)


def _errors(information: np.ndarray) -> np.ndarray:
    """Return the standard errors by an information matrix; NaN where it is not positive definite."""
    size = len(information)
    if not np.isfinite(information).all() or (size and np.linalg.eigvalsh(information).min() <= 0):
        return np.full(size, np.nan)
    return np.sqrt(np.diagonal(np.linalg.inv(information)))


def _derivatives(program: Program, layout: Layout, wanted: tuple[int, ...], roles: Roles) -> Any:
    shift, index = np.flatnonzero(roles.shift), np.asarray(wanted, int)

    def density(values: Array, eta: Array, flat: Array, design: Array, pop: Population) -> Array:
        at = flat.at[index].set(values)
        held = eta - shifted(design, at[shift] - flat[shift])
        return program.log_joint(pop, program.constrain(layout.unravel(at)), held)

    @jax.jit
    def run(draws: Array, flat: Array, design: Array, pop: Population) -> tuple[Array, Array, Array]:
        clean = sanitise(pop)
        seeds = jnp.eye(len(wanted), dtype=flat.dtype)

        def one(eta: Array) -> tuple[Array, Array, Array]:
            function = lambda values: density(values, eta, flat, design, clean)  # noqa: E731

            def along(seed: Array) -> tuple[Array, Array]:
                slope = lambda values: jax.jvp(function, (values,), (seed,))[1]  # noqa: E731
                return jax.vmap(lambda other: jax.jvp(slope, (flat[index],), (other,)))(seeds)

            slopes, curvatures = jax.lax.map(along, seeds)
            return function(flat[index]), slopes[:, 0], curvatures

        return jax.lax.map(one, draws)

    return run
