"""Saving and loading the guide of a fit by VI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hierax.data.population import Population
from hierax.data.sanitise import sanitise
from hierax.errors import tell
from hierax.infer.marginal.session import Session
from hierax.infer.vi import linked
from hierax.infer.vi.bound import State
from hierax.infer.vi.variational import Variational
from hierax.infer.vi.vi import VI

# Prefixes of the arrays of a variational fit in a file: population parameters, parameters of the guide, and the rest.
_POPULATION, _GUIDE, _REST = "vi_population_", "vi_guide_", "vi_"


def saved_variational(found: Variational) -> dict[str, Any]:
    """Return the state of a guide as named arrays, in the form in which a saved fit holds them."""
    guide = {f"{_GUIDE}{index}": leaf for index, leaf in enumerate(jax.tree.leaves(found.state.guide))}
    population = {f"{_POPULATION}{name}": value for name, value in found.state.population.items()}
    rest = {name: getattr(found, name) for name in ("shift", "pace", "flat", "elbo", "pareto_k")}
    if found.linked is not None:
        rest["linked"] = found.linked
    arrays = {**guide, **population, **{f"{_REST}{name}": value for name, value in rest.items()}}
    return {name: np.asarray(value) for name, value in arrays.items()}


def load_variational(
    arrays: Mapping[str, np.ndarray], method: Any, session: Session, free: np.ndarray, path: Any
) -> Variational | None:
    """Return the guide that a file holds; None where there is none, or where its options are not known.

    The estimates do not need the guide. Without it, only the methods that evaluate it are missing: ``encode`` and
    ``bounds``.
    """
    if f"{_REST}flat" not in arrays:
        return None
    if not isinstance(method, VI):
        tell(
            f"The guide of the fit in {path} cannot be read without its options, because an optimiser is not in the "
            f"file. Pass load_fit(estimator=VI(...)) with the options of the fit to have it.",
        )
        return None
    size = len(session.program.effect_names)
    shapes = jnp.zeros((session.pop.n_subjects, size)), jnp.zeros((session.pop.n_subjects, size, size))
    links = arrays.get(f"{_REST}linked")

    def begun(pop: Population) -> Any:
        own = method.guide.begin(jax.random.key(0), sanitise(pop), *shapes)
        return own if links is None else linked.begin(method.guide, own, size, len(links))

    template = jax.eval_shape(begun, jax.tree.map(jnp.asarray, session.pop))
    leaves = [arrays[f"{_GUIDE}{index}"] for index in range(len(jax.tree.leaves(template)))]
    population = {
        name.removeprefix(_POPULATION): value for name, value in arrays.items() if name.startswith(_POPULATION)
    }
    state = State(population, jax.tree.unflatten(jax.tree.structure(template), leaves), (), None)
    rest = {name: arrays[f"{_REST}{name}"] for name in ("shift", "pace", "flat")}
    elbo, k = tuple(arrays[f"{_REST}elbo"].tolist()), float(arrays[f"{_REST}pareto_k"])
    return Variational(session, method, free, **rest, state=state, elbo=elbo, linked=links, pareto_k=k)
