"""What estimators ask of a program, as refusals in words."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Array

from hierax.data.population import Population, sanitise
from hierax.infer.blocks import Vectors
from hierax.program.density import Program, unwrap
from hierax.program.families import FAMILIES, find_family

GAUSSIAN = ("Normal", "LogNormal", "MultivariateNormal")


def need_families(program: Program, pop: Population, estimator: str) -> list[str]:
    """Ask for an information formula at every observed site, one that holds."""
    found = _moving_parameters(program, pop, estimator)
    for name, site in program.sites.data.items():
        if site.factor:
            found.append(
                f"{estimator} cannot use factor '{name}', because a bare log density has no Fisher information. "
                f"Use Laplace(), which takes its second derivatives."
            )
        elif find_family(unwrap(program.sites.messages[name]["fn"])[1]) is None:
            known = sorted({family.name for _, family in FAMILIES})
            found.append(
                f"{estimator} cannot use the data site '{name}' ({site.distribution}), because its Fisher information "
                f"has no closed form here; it knows {known}. Use Laplace(), which takes second derivatives."
            )
    return found


def _moving_parameters(program: Program, pop: Population, estimator: str) -> list[str]:
    """Refuse parameters that depend on random effects though their information formula holds them fixed."""
    families = {
        name: find_family(unwrap(program.sites.messages[name]["fn"])[1])
        for name, site in program.sites.data.items()
        if not site.factor
    }
    held = {name: family.free_of_effects for name, family in families.items() if family and any(family.free_of_effects)}
    if not held or not program.effect_names:
        return []

    def parameters(eta: Vectors, pop: Population) -> dict[str, tuple[Array, ...]]:
        run = program.run(sanitise(pop), program.start(), eta)
        return {name: program.observed(run, name).parameters for name in held}  # type: ignore[union-attr]

    eta = np.random.default_rng(1).normal(size=(pop.n_subjects, len(program.effect_names)))
    _, moved = jax.jit(lambda e, pop: jax.jvp(lambda x: parameters(x, pop), (e,), (np.ones_like(eta),)))(eta, pop)
    return [
        f"{estimator} cannot use parameter '{label}' of the data site '{name}' "
        f"({program.sites.data[name].distribution}), because it depends on random effects, and the site's Fisher "
        f"information is known for a fixed one only. Use Laplace(), which takes second derivatives."
        for name, labels in held.items()
        for label, tangent in zip(labels, moved[name], strict=True)
        if label and np.any(np.nan_to_num(np.asarray(tangent)) != 0)
    ]


def need_gaussian_data(program: Program, pop: Population, estimator: str) -> list[str]:
    """Ask for Gaussian (or log-normal) data, whose scale can be frozen."""
    return need_families(program, pop, estimator) + [
        f"{estimator} cannot use the data site '{name}' ({site.distribution}), because it has no location and scale "
        f"to take apart; it treats {list(GAUSSIAN)}. Use FOCE() or Laplace()."
        for name, site in program.sites.data.items()
        if not site.factor and site.distribution not in GAUSSIAN
    ]


def need_gaussian_effects(program: Program, estimator: str) -> list[str]:
    """Ask for random effects that are Gaussian in their working coordinates."""
    return [
        f"{estimator} cannot use random effect '{name}' ({site.distribution}), because it linearises around Gaussian "
        f"random effects. Use FOCE(), Laplace() or AGQ()."
        for name, site in program.sites.effects.items()
        if not site.gaussian
    ]
