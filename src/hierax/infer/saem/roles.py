"""What each population parameter does in a program, found by differentiating it at random points.

SAEM's maximisation is exact for a parameter that belongs to the distribution of the random effects alone, or that only
shifts random effects: with CL = cl·exp(η), the data depend on log cl + η. Whether parameters θ enter the data's density
ℓ through φ = η + Aθ, and in no other way, is judged by derivatives: then ∂ℓ/∂θ = ∂ℓ/∂η·A with the same A everywhere.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from hierax.data.population import Population
from hierax.data.sanitise import sanitise
from hierax.infer.blocks import push_basis
from hierax.program.density import Program
from hierax.program.parameters import Layout
from hierax.program.read import cached

# Number of random points, beyond the number of unknowns, from which a shift is solved, and of further points at which
# it is verified.
_SPARE, _VERIFY = 3, 3
# Relative error of the derivatives up to which a shift counts as verified.
_TOLERANCE = 1e-6
# If more parameters than this have no closed form, they are moved by the optimiser instead of Newton steps.
_NEWTON_UP_TO = 24


@dataclasses.dataclass(frozen=True)
class Roles:
    """The free population parameters by what they do.

    Attributes
    ----------
    prior : bool array, (parameter,)
        Parameters of the distribution of the random effects alone, which is Gaussian.
    shift : bool array, (parameter,)
        Parameters that shift random effects, and do nothing else.
    rest : bool array, (parameter,)
        All other free parameters: residual error, effects without random effects, ...
    weights : bool array, (parameter,)
        Network weights among ``rest``.
    design : array, (shift, subject, coordinate)
        By how much each shifting parameter moves each random effect.
    common : bool
        Whether all subjects' random effects have the same distribution.
    aloof : bool
        Whether the data's density does not depend on the weights at fixed values of the random effects, because they
        are the weights of a flow.
    """

    prior: Bool[np.ndarray, " parameter"]
    shift: Bool[np.ndarray, " parameter"]
    rest: Bool[np.ndarray, " parameter"]
    weights: Bool[np.ndarray, " parameter"]
    design: Float[np.ndarray | Array, "shift subject coordinate"]
    common: bool
    aloof: bool = False

    @property
    def optimised(self) -> Bool[np.ndarray, " parameter"]:
        """Which entries the optimiser moves: weights, and all those without a closed form if there are many."""
        rest = self.rest & ~self.weights
        return self.weights | rest if rest.sum() > _NEWTON_UP_TO else self.weights


def find_roles(program: Program, pop: Population, layout: Layout, flat: np.ndarray, free: np.ndarray) -> Roles:
    """Return the roles of the free entries of the flat vector.

    ``free`` marks these entries. For SAEM, entries whose prior is part of the objective are left out of ``free`` and
    added to ``rest`` afterwards (see ``roles_of``).
    """
    weights = layout.weights() & free
    candidates = np.flatnonzero(free & ~weights)
    size = len(program.effect_names)
    none = np.zeros(layout.size, bool)
    nothing = Roles(none, none, free.copy(), weights, np.zeros((0, pop.n_subjects, size)), False)
    if not program.sites.effects or not all(site.gaussian for site in program.sites.effects.values()):
        return nothing
    if any(program.sites.messages[name]["scale"] is not None for name in program.sites.effects):
        return nothing
    points = _points(program, pop, layout, flat, candidates, size + _SPARE + _VERIFY)
    if not len(points.data):
        return nothing
    in_data = np.abs(points.data).max((0, 2)) > 0
    in_prior = np.abs(points.prior).max((0, 2)) > 0
    prior, shift = none.copy(), none.copy()
    prior[candidates[in_prior & ~in_data]] = True
    designs = []
    for position in np.flatnonzero(in_data & ~in_prior):
        design = _design(points.effect, points.data[:, position], size + _SPARE)
        if design is not None:
            shift[candidates[position]] = True
            designs.append(design)
    rest = free & ~prior & ~shift
    stacked = np.stack(designs) if designs else np.zeros((0, pop.n_subjects, size))
    return Roles(prior, shift, rest, weights, stacked, points.common)


@dataclasses.dataclass(frozen=True)
class _Points:
    """Derivatives at random points: of the data's density and of the prior's."""

    effect: Float[np.ndarray, "point subject coordinate"]
    data: Float[np.ndarray, "point candidate subject"]
    prior: Float[np.ndarray, "point candidate subject"]
    common: bool


def _points(
    program: Program, pop: Population, layout: Layout, flat: np.ndarray, candidates: np.ndarray, count: int
) -> _Points:
    wanted = tuple(int(index) for index in candidates)
    slopes = cached(program, ("slopes", wanted), lambda: jax.jit(_slopes(program, layout.unravel, wanted)))
    rng = np.random.default_rng(3)
    found, common = [], True
    for _ in range(count + 4):
        at = flat.copy()
        at[candidates] += rng.normal(0, 0.1, len(candidates))
        noise = rng.normal(0, 0.7, (pop.n_subjects, len(program.effect_names)))
        effect, data, prior, same = slopes(jnp.asarray(at), jnp.asarray(noise), pop)
        common = common and bool(same)
        if all(np.isfinite(part).all() for part in (effect, data, prior)):
            found.append((np.asarray(effect), np.asarray(data), np.asarray(prior)))
        if len(found) == count:
            break
    if len(found) < count:
        found = []
    effect, data, prior = (np.stack(part) for part in zip(*found, strict=True)) if found else [np.zeros((0, 0, 0))] * 3
    return _Points(effect, data, prior, common)


def _slopes(program: Program, unravel: Any, wanted: tuple[int, ...]) -> Any:
    def slopes(flat: Array, noise: Array, pop: Population) -> tuple[Array, Array, Array, Array]:
        pop = sanitise(pop)

        def densities(flat: Array, eta: Array) -> tuple[Array, Array]:
            params = program.constrain(unravel(flat))
            run = program.run(pop, params, eta)
            return program.log_data(pop, run), program.log_prior(pop, params, eta, run)

        params = program.constrain(unravel(flat))
        mean, root = program.reference(pop, params), program.prior_root(pop, params, noise)
        eta = mean + jnp.einsum("nij,nj->ni", root, noise)
        by_effect = push_basis(lambda e: densities(flat, e)[0], eta)[1]

        def push(index: Array) -> tuple[Array, Array]:
            seed = (jnp.arange(flat.shape[0]) == index).astype(flat.dtype)
            return jax.jvp(lambda vector: densities(vector, eta), (flat,), (seed,))[1]

        data, prior = jax.lax.map(push, jnp.asarray(wanted, int)) if wanted else (jnp.zeros((0, len(eta))),) * 2
        real = jnp.asarray(pop.subject_mask)
        first = jnp.argmax(real)
        spread = jnp.where(real[:, None, None], root - root[first], 0.0)
        moved = jnp.where(real[:, None], mean - mean[first], 0.0)
        same = (jnp.abs(spread).max() == 0) & (jnp.abs(moved).max() == 0)
        return by_effect.T, data, prior, same

    return slopes


def _design(effect: np.ndarray, slope: np.ndarray, fitted: int) -> np.ndarray | None:
    """Return A with ∂ℓ/∂θ = ∂ℓ/∂η·A at all points, (subject, coordinate), or None if there is no such A.

    ``effect`` is (point, subject, coordinate), ``slope`` (point, subject). A is solved from the first ``fitted``
    points, and verified at the others.
    """
    matrix, right = np.moveaxis(effect, 1, 0), slope.T
    scale = np.abs(matrix).max(1, keepdims=True)
    scale = np.where(scale > 0, scale, 1.0)
    solved = np.linalg.pinv((matrix / scale)[:, :fitted], rcond=1e-9) @ right[:, :fitted, None]
    design = solved[..., 0] / scale[:, 0]
    size = np.abs(matrix * design[:, None]).sum(-1) + np.abs(right)
    error = np.abs(np.einsum("npk,nk->np", matrix, design) - right)
    if np.any(error > _TOLERANCE * size.max(1, keepdims=True) + 1e-12):
        return None
    return design


def weights_are_aloof(program: Program, pop: Population, layout: Layout, flat: np.ndarray, weights: np.ndarray) -> bool:
    """Return whether the data's density does not depend on the weights at fixed values of the random effects.

    This is so for the weights of flows. It is judged by the density's gradient in the weights at two random points.
    """
    if not program.flows or not weights.any():
        return False
    index, rng = np.flatnonzero(weights), np.random.default_rng(5)

    def seen(moved: Array, flat: Array, eta: Array, pop: Population) -> Array:
        held = program.behind_flows(pop, program.constrain(layout.unravel(flat)), eta)

        def density(values: Array) -> Array:
            params = program.constrain(layout.unravel(flat.at[index].set(values)))
            return jnp.sum(program.log_data(pop, program.run(pop, params, eta, held=held)))

        return jnp.abs(jax.grad(density)(moved)).max()

    key = ("aloof", weights.tobytes())
    function = cached(program, key, lambda: jax.jit(jax.vmap(seen, in_axes=(0, None, None, None))))
    moved = flat[index] + 0.1 * rng.normal(size=(2, len(index)))
    eta = 0.3 * rng.normal(size=(pop.n_subjects, len(program.effect_names)))
    return bool(np.all(np.asarray(function(moved, jnp.asarray(flat), jnp.asarray(eta), sanitise(pop))) == 0))
