"""What estimators require of a program; each function returns its refusals in words."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

from hierax.data.population import Population
from hierax.data.sanitise import sanitise
from hierax.infer.blocks import Vectors
from hierax.program.density import Program, unwrap
from hierax.program.families import FAMILIES, Family, find_family

# The observation distributions that FO and FOCE without interaction can use, because they have a location and a scale.
GAUSSIAN = ("Normal", "LogNormal", "MultivariateNormal")


# The advice where the Fisher information is not known.
_LAPLACE = "Use Laplace(), which takes second derivatives"


def need_families(program: Program, pop: Population, estimator: str, instead: str = _LAPLACE) -> list[str]:
    """Refuse observed sites without a valid formula of the Fisher information; say what to use ``instead``."""
    found = _moving_parameters(program, pop, estimator, instead)
    for name, site in program.sites.data.items():
        if site.factor:
            found.append(
                f"{estimator} cannot use factor '{name}', because a bare log density has no Fisher information. "
                f"{instead}."
            )
        elif _family(program, name) is None:
            known = sorted({family.name for _, family in FAMILIES})
            found.append(
                f"{estimator} cannot use the data site '{name}' ({site.distribution}), because its Fisher information "
                f"has no closed form here; it knows {known}. {instead}."
            )
    return found


def _moving_parameters(program: Program, pop: Population, estimator: str, instead: str) -> list[str]:
    """Refuse parameters that depend on random effects although the formula of the Fisher information fixes them."""
    families = {name: _family(program, name) for name, site in program.sites.data.items() if not site.factor}
    held = {
        name: (*family.free_of_effects, *_transform_labels(program, name))
        for name, family in families.items()
        if family and (any(family.free_of_effects) or _transform_labels(program, name))
    }
    if not held or not program.effect_names:
        return []

    def parameters(eta: Vectors, pop: Population) -> dict[str, tuple[Array, ...]]:
        run = program.run(sanitise(pop), program.start(), eta)
        return {
            name: (*program.observed(run, name).parameters, *_transform_leaves(run.messages[name]["fn"]))  # type: ignore[union-attr]
            for name in held
        }

    eta = np.random.default_rng(1).normal(size=(pop.n_subjects, len(program.effect_names)))
    _, moved = jax.jit(lambda e, pop: jax.jvp(lambda x: parameters(x, pop), (e,), (np.ones_like(eta),)))(eta, pop)
    return [
        f"{estimator} cannot use parameter '{label}' of the data site '{name}' "
        f"({program.sites.data[name].distribution}), because it depends on random effects, and the site's Fisher "
        f"information is known for a fixed one only. {instead}."
        for name, labels in held.items()
        for label, tangent in zip(labels, moved[name], strict=True)
        # Derivatives at masked entries may be NaN, and are left out.
        if label and np.any(np.nan_to_num(np.asarray(tangent)) != 0)
    ]


def _family(program: Program, name: str) -> Family | None:
    """Return the family of a data site's distribution beneath its transforms, by the types alone."""
    fn = unwrap(program.sites.messages[name]["fn"])[1]
    while type(fn) is dist.TransformedDistribution and not fn.event_shape:
        fn = unwrap(fn.base_dist)[1]
    return find_family(fn)


def _transform_leaves(fn: Any) -> list[Array]:
    """Return the floating numbers inside the transforms of an observed distribution."""
    return [jnp.asarray(leaf, float) for leaf in _leaves_of_transforms(fn)]


def _leaves_of_transforms(fn: Any) -> list[Any]:
    fn = unwrap(fn)[1]
    return jax.tree.leaves(fn.transforms) if type(fn) is dist.TransformedDistribution else []


def _transform_labels(program: Program, name: str) -> list[str]:
    return ["transform"] * len(_leaves_of_transforms(program.sites.messages[name]["fn"]))


def need_gaussian_data(program: Program, pop: Population, estimator: str) -> list[str]:
    """Refuse data sites that are not Gaussian (or log-normal), because only these have a scale to be frozen."""
    return need_families(program, pop, estimator) + [
        f"{estimator} cannot use the data site '{name}' ({site.distribution}), because {estimator} needs a location "
        f"and a scale, and knows those of {list(GAUSSIAN)} only. Use FOCE() or Laplace()."
        for name, site in program.sites.data.items()
        if not site.factor and getattr(_family(program, name), "log_prob", None) is None
    ]


def need_gaussian_effects(program: Program, estimator: str) -> list[str]:
    """Refuse random effects that are not Gaussian in their working coordinates."""
    return [
        f"{estimator} cannot use random effect '{name}' ({site.distribution}), because it linearises around Gaussian "
        f"random effects. Use FOCE(), Laplace() or AGQ()."
        for name, site in program.sites.effects.items()
        if not site.gaussian
    ]
