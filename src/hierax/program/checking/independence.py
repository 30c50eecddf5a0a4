"""Checking by derivatives that subjects are independent given the population parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hierax.data.population import Population
from hierax.errors import ModelError
from hierax.program.density import Program
from hierax.program.trace import per_subject, site_log_prob


def check_independence(program: Program, pop: Population) -> None:
    """Check that no subject's log density depends on another's random effects or data.

    The derivatives of the odd subjects' log densities with respect to the even subjects' inputs must be exactly 0, and
    the reverse. NumPyro's own dependency graph cannot tell this: it sees plates only, not ``eta - eta.mean()``.

    Raises
    ------
    ModelError
        Names the random effect, the data or the parameter that ties subjects together, and the site that shows it.
    """
    real = np.flatnonzero(np.asarray(pop.subject_mask))
    if real.size < 2:
        return
    inputs, names = _inputs(program, pop)
    moved = _moved(program, pop, inputs, names, real)
    for index, name in enumerate(names):
        # moved[input, parity of the tangent, site, parity of the site's subjects]
        sites = [*program.sites.individual, *program.sites.data, "the prior of the random effects"]
        across = moved[index, 0, :, 1] | moved[index, 1, :, 0]
        if name.startswith("param:"):
            own = (moved[index, 0, :, 0] | moved[index, 1, :, 1]).any()
            if own and not across.any():
                _refuse_hidden_effect(name.removeprefix("param:"), pop)
        elif across.any():
            _refuse(name, sites[int(np.argmax(across))])


def _points(program: Program) -> Any:
    """Return the start of the parameters and a random point near it, stacked.

    At the start alone, a coefficient of 0 would hide a dependence on what it multiplies.
    """
    rng = np.random.default_rng(3)
    start = program.start()
    free = program.unconstrain(start)
    moved = jax.tree.map(lambda leaf: np.asarray(leaf) + 0.1 * rng.standard_normal(np.shape(leaf)), free)
    return jax.tree.map(lambda one, other: np.stack([one, other]), start, dict(program.constrain(moved)))


def _inputs(program: Program, pop: Population) -> tuple[dict[str, Any], list[str]]:
    """Return the inputs through which subjects could depend on each other, and their names.

    These are random effects, float arrays of the population, and population parameters with one entry per subject.
    """
    rng = np.random.default_rng(1)
    start = jax.jit(lambda pop, params: program.split(program.reference(pop, params)))(pop, program.start())
    effects = {name: np.asarray(z) + 0.1 * rng.standard_normal(z.shape) for name, z in start.items()}
    leaves = jax.tree.leaves(pop)
    data = {str(i): np.asarray(leaf) for i, leaf in enumerate(leaves) if _float(leaf)}
    params = {
        name: np.asarray(site.start)
        for name, site in program.sites.population.items()
        if site.shape and site.shape[0] == pop.n_subjects
    }
    names = [*effects, "data", *(f"param:{name}" for name in params)]
    return {"effects": effects, "data": data, "params": params}, names


def _float(leaf: Any) -> bool:
    return np.issubdtype(jnp.result_type(leaf), np.floating) and np.ndim(leaf) > 0


def _moved(program: Program, pop: Population, inputs: dict[str, Any], names: list[str], real: np.ndarray) -> np.ndarray:
    """Return whether inputs of half of the subjects change the densities of either half, by input and by site."""
    leaves, tree = jax.tree.flatten(pop)

    def densities(inputs: dict[str, Any], params: dict[str, Any]) -> Array:
        at = jax.tree.unflatten(tree, [inputs["data"].get(str(i), leaf) for i, leaf in enumerate(leaves)])
        params = {**params, **inputs["params"]}
        flat = [site.flatten(inputs["effects"][name]) for name, site in program.sites.effects.items()]
        eta = jnp.concatenate(flat, axis=-1) if flat else jnp.zeros((pop.n_subjects, 0))
        run = program.run(at, params, eta)
        rows = [_total(run.messages[name]["value"], pop.n_subjects) for name in program.sites.individual]
        rows += [
            per_subject(site_log_prob(run.messages[name]), site.dim, pop.n_subjects)
            for name, site in program.sites.data.items()
        ]
        return jnp.stack([*rows, program.log_prior(at, params, eta, run)])

    def tangent(name: str, rows: np.ndarray) -> dict[str, Any]:
        group, key = ("data", None) if name == "data" else ("effects", name)
        if name.startswith("param:"):
            group, key = "params", name.removeprefix("param:")
        axes = {effect: site.axis for effect, site in program.sites.effects.items()}

        def seed(which: str, path: str, leaf: np.ndarray) -> np.ndarray:
            if which != group or (key is not None and path != key):
                return np.zeros_like(leaf)
            axis = axes[path] if which == "effects" else 0
            shape = [1] * leaf.ndim
            shape[axis] = -1
            return np.broadcast_to(rows.reshape(shape), leaf.shape).astype(leaf.dtype)

        return {
            which: {path: seed(which, path, leaf) for path, leaf in group_inputs.items()}
            for which, group_inputs in inputs.items()
        }

    parity = np.arange(pop.n_subjects) % 2
    halves = [parity == 0, parity == 1]
    seeds = [tangent(name, half) for name in names for half in halves]
    stacked = jax.tree.map(lambda *parts: np.stack(parts), *seeds)

    def push(params: dict[str, Any], seed: Any) -> Array:
        return jax.jvp(lambda x: densities(x, params), (inputs,), (seed,))[1]

    over_points = jax.jit(jax.vmap(jax.vmap(push, in_axes=(None, 0)), in_axes=(0, None), axis_size=2))
    # A derivative of NaN, as of a masked prediction of 0, is not taken for a dependence; others would show a real one.
    moved = np.nan_to_num(np.asarray(over_points(_points(program), stacked))) != 0
    changes = moved.any(0)[..., real]
    even = real % 2 == 0
    by_half = np.stack([changes[..., even].any(-1), changes[..., ~even].any(-1)], axis=-1)
    return by_half.reshape(len(names), 2, *by_half.shape[1:])


def _total(value: Array, n_subjects: int) -> Array:
    """Return the sum of an individual parameter per subject, whose axis is the first one of length ``n_subjects``."""
    axis = next((axis for axis, size in enumerate(value.shape) if size == n_subjects), None)
    if axis is None:
        return jnp.zeros(n_subjects)
    return jnp.moveaxis(value, axis, 0).reshape(n_subjects, -1).astype(float).sum(-1)


def _refuse(name: str, site: str) -> None:
    if name == "data":
        raise ModelError(
            f"Site '{site}' of one subject depends on the data of other subjects (a mean over the population, say), "
            f"so that subjects are not independent and mini-batches would change the model. Compute such statistics "
            f"beforehand and pass them as constants. A vector of each subject has the shape (subject, 1, k), for the "
            f"subject plate is dim=-2: with_data(embedding=array[:, None])."
        )
    raise ModelError(
        f"Random effect site '{name}' of one subject changes '{site}' of other subjects, as `{name} - {name}.mean()` "
        f"or an array of shape (subject, subject) would. Marginal estimators integrate over each subject alone, so "
        f"subjects must be independent given the population parameters. Use each subject's own '{name}'; individual "
        f"parameters are (subject, 1)."
    )


def _refuse_hidden_effect(name: str, pop: Population) -> None:
    raise ModelError(
        f"Site '{name}' outside the plate has one entry for each of the {pop.n_subjects} subjects, and each entry "
        f"changes the density of its own subject only, so that it is a random effect outside its plate. Sample "
        f"'{name}' inside the subject plate."
    )
