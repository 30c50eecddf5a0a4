"""The posterior of population parameters and random effects as one density over unconstrained numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from hierax.data.population import Population
from hierax.data.sanitise import sanitise
from hierax.infer.blocks import Vectors
from hierax.infer.saem.mstep import shifted
from hierax.infer.saem.roles import Roles
from hierax.program.density import Program
from hierax.program.parameters import Layout
from hierax.program.priors import log_prior
from hierax.program.read import cached

# A coordinate whose posterior SD is below this part of its prior SD is sampled centred.
_INFORMED = 0.6


@dataclasses.dataclass(frozen=True)
class Posterior:
    """The joint posterior of a program, in coordinates in which it is easy to sample.

    A random effect about which the data say little is written as mean + root · z (non-centred), one about which they
    say much as φ = η + Aθ with the parameters θ that shift it (centred). The choice is the same for all subjects.

    Attributes
    ----------
    free : bool array, (parameter,)
        Which population parameters vary.
    flat : array, (parameter,)
        All population parameters, of which the free ones are replaced.
    centred : bool array, (coordinate,)
    centre, spread : arrays, (subject, coordinate)
        Location and scale of the centred coordinates.
    """

    program: Program
    layout: Layout
    priors: Mapping[str, Any]
    roles: Roles
    free: Bool[np.ndarray, " parameter"]
    flat: Float[np.ndarray | Array, " parameter"]
    centred: Bool[np.ndarray | Array, " coordinate"]
    centre: Float[np.ndarray | Array, "subject coordinate"]
    spread: Float[np.ndarray | Array, "subject coordinate"]

    def arrays(self) -> dict[str, Any]:
        """Return the numeric fields, as arguments of functions that are compiled once for all their values."""
        names = ("flat", "centred", "centre", "spread")
        return {**{name: getattr(self, name) for name in names}, "design": self.roles.design}

    def with_arrays(self, arrays: Mapping[str, Any]) -> Posterior:
        """Return the posterior with other numeric fields, which may be traced."""
        parts = dict(arrays)
        roles = dataclasses.replace(self.roles, design=parts.pop("design"))
        return dataclasses.replace(self, roles=roles, **parts)

    def place(self, x: Array) -> Array:
        """Return the flat vector with its free entries replaced."""
        return jnp.asarray(self.flat).at[np.flatnonzero(self.free)].set(x)

    def effects(self, x: Array, z: Vectors, pop: Population) -> tuple[Array, Vectors, Array]:
        """Return flat vector, random effects, and log|∂η/∂z| by subject; ``pop`` has to be sanitised."""
        flat = self.place(x)
        params = self.program.constrain(self.layout.unravel(flat))
        mean = self.program.reference(pop, params)
        root = self.program.prior_root(pop, params, mean)
        away = mean + jnp.einsum("nij,nj->ni", root, z)
        index = np.flatnonzero(self.roles.shift)
        phi = jnp.asarray(self.centre) + jnp.asarray(self.spread) * z
        near = phi - shifted(jnp.asarray(self.roles.design), flat[index])
        eta = jnp.where(self.centred, near, away)
        log_det = jnp.log(jnp.abs(jnp.diagonal(root, axis1=-2, axis2=-1)))
        return flat, eta, jnp.where(self.centred, 0.0, log_det).sum(-1)

    def potential(self, values: Mapping[str, Array], pop: Population) -> Array:
        """Return −log posterior density of ``x`` (free parameters) and ``z`` (random effects), up to a constant."""
        clean = sanitise(pop)
        flat, eta, log_det = self.effects(values["x"], values["z"], clean)
        params = self.program.constrain(self.layout.unravel(flat))
        real = jnp.asarray(pop.subject_mask)
        joint = self.program.log_joint(clean, params, eta) + log_det
        # Coordinates of padded subjects get a standard normal density, so that the posterior stays proper.
        idle = -0.5 * jnp.sum(values["z"] ** 2, -1)
        return -jnp.sum(jnp.where(real, joint, idle)) - log_prior(self.layout, self.priors, flat, clean)

    def coordinates(self, flat: np.ndarray, eta: np.ndarray, pop: Population) -> dict[str, np.ndarray]:
        """Return the coordinates of a point."""

        def invert(flat: Array, eta: Vectors, pop: Population, arrays: Mapping[str, Any]) -> Array:
            clean, here = sanitise(pop), self.with_arrays(arrays)
            params = self.program.constrain(self.layout.unravel(flat))
            mean = self.program.reference(clean, params)
            root = self.program.prior_root(clean, params, mean)
            away = jnp.linalg.solve(root, (eta - mean)[..., None])[..., 0]
            phi = eta + shifted(jnp.asarray(here.roles.design), flat[index])
            return jnp.where(here.centred, (phi - here.centre) / here.spread, away)

        index = np.flatnonzero(self.roles.shift)
        function = cached(self.program, ("coordinates", index.tobytes()), lambda: jax.jit(invert))
        z = function(jnp.asarray(flat), jnp.asarray(eta), pop, self.arrays())
        return {"x": np.asarray(flat)[self.free], "z": np.asarray(z)}


def posterior(
    program: Program,
    layout: Layout,
    priors: Mapping[str, Any],
    roles: Roles,
    pop: Population,
    flat: np.ndarray,
    free: np.ndarray,
    eta: np.ndarray,
    covariance: np.ndarray,
    centring: str | bool,
) -> Posterior:
    """Return the posterior in coordinates chosen by what the data say at a point.

    Parameters
    ----------
    eta, covariance : arrays, (subject, coordinate[, coordinate])
        Modes and conditional covariances at this point.
    centring : {"auto", True, False}
        Whether random effects are sampled centred.
    """
    params = layout.params(flat)

    def scales(pop: Population, params: Any) -> tuple[Array, Array]:
        clean = sanitise(pop)
        return program.prior_root(clean, params, program.reference(clean, params)), program.prior_scale(
            clean, params, program.reference(clean, params)
        )

    root, sd = (np.asarray(part) for part in cached(program, "scales", lambda: jax.jit(scales))(pop, params))
    rows = np.flatnonzero(np.asarray(pop.subject_mask))
    spread = np.sqrt(np.clip(np.einsum("nii->ni", covariance), 0, None))
    # This is only the scale of the coordinates: the posterior is the same for any positive one.
    spread = np.where((spread > 0) & np.isfinite(spread), spread, sd)
    size = eta.shape[1]
    if centring == "auto":
        centred = np.median(spread[rows] / sd[rows], axis=0) < _INFORMED
        crossed = np.abs(root[rows] - np.einsum("nii->ni", root[rows])[:, :, None] * np.eye(size)).max(initial=0.0) > 0
        if crossed:
            # Correlated random effects are either all centred or all non-centred.
            centred = np.full(size, centred.mean() > 0.5)
    else:
        centred = np.full(size, bool(centring))
    index = np.flatnonzero(roles.shift)
    phi = eta + np.einsum("jnd,j->nd", roles.design, flat[index])
    return Posterior(program, layout, priors, roles, free, flat, centred, phi, spread)
