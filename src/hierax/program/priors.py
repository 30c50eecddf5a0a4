"""Priors on population parameters: which there are, which count, and the penalty they make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

from hierax.data.population import Population
from hierax.program.density import Program
from hierax.program.parameters import Layout, is_weight
from hierax.program.sites import PopulationSite, constraint_name, is_tree

UsePriors = Literal["auto"] | bool
# Marks a site whose prior is the program's own. It may depend on other sites, so that it is read from a run.
OWN = "the program's own"


def collect_priors(program: Program, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return site → prior: those given, and the program's own for all other sites.

    Raises
    ------
    ValueError
        A prior for an unknown site, or with another support than the site's constraint.
    """
    priors: dict[str, Any] = {name: OWN for name, site in program.sites.population.items() if site.prior is not None}
    for name, prior in (given or {}).items():
        if name not in program.sites.population:
            raise ValueError(
                f"priors names the site '{name}', which the program does not have. Its population parameters are "
                f"{list(program.sites.population)}."
            )
        site = program.sites.population[name]
        priors[name] = prior if site.kind == "weights" else _expanded(site, prior)
    return priors


def counting(program: Program, priors: Mapping[str, Any], use_priors: UsePriors) -> dict[str, Any]:
    """Return the priors that count in a maximum-likelihood fit; for ``"auto"``, those of network weights only."""
    if use_priors not in ("auto", True, False):
        raise ValueError(f"use_priors={use_priors!r} is not known. Use 'auto', True or False.")
    if use_priors is True:
        return dict(priors)
    if use_priors is False:
        return {}
    return {name: prior for name, prior in priors.items() if is_weight(program, program.sites.population[name])}


def penalty(layout: Layout, priors: Mapping[str, Any], flat: Array, pop: Population) -> Array:
    """Return −log prior density of the constrained parameters, a scalar."""
    params = layout.program.constrain(layout.unravel(flat))
    own = [name for name, prior in priors.items() if prior is OWN]
    run = layout.program.run(pop, params, None) if own else None
    total = jnp.zeros(())
    for name, prior in priors.items():
        prior = run.messages[name]["fn"] if run is not None and name in own else prior
        for fn, value in tensors_of(name, prior, params[name]):
            total = total - jnp.sum(fn.log_prob(value))
    return total


def log_prior(layout: Layout, priors: Mapping[str, Any], flat: Array, pop: Population) -> Array:
    """Return the log density of the flat vector: of the constrained parameters, times |∂constrained/∂flat|."""
    total = -penalty(layout, priors, flat, pop)
    free = layout.unravel(flat)
    for name in priors:
        site = layout.program.sites.population[name]
        if site.kind != "weights":
            value = free[name]
            total = total + jnp.sum(site.transform.log_abs_det_jacobian(value, site.transform(value)))
    return total


def _expanded(site: PopulationSite, prior: Any) -> Any:
    if not isinstance(prior, dist.Distribution):
        raise ValueError(f"priors['{site.name}'] is a {type(prior).__name__}, but must be a NumPyro distribution.")
    if tuple(prior.event_shape) != site.shape:
        prior = prior.expand(site.shape).to_event(len(site.shape))
    whole_line = constraint_name(prior.support) == "Real" and site.constraint != "Real"
    support: Any = prior.support
    if whole_line or not bool(np.all(support(jnp.asarray(site.start)))):
        raise ValueError(
            f"priors['{site.name}'] has support {constraint_name(prior.support)}, but the site is constrained to "
            f"{site.constraint}. Use a prior on that support (LogNormal or HalfNormal for positive parameters)."
        )
    return prior


def tensors_of(name: str, prior: Any, value: Any) -> list[tuple[Any, Any]]:
    """Return (distribution, tensor) for every tensor of a site."""
    if not is_tree(value):
        return [(prior, value)]
    pairs = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(value)[0]:
        dotted = jax.tree_util.keystr(path, simple=True, separator=".")
        fn: Any = prior
        if isinstance(prior, dict):
            fn = prior.get(dotted)
        elif not isinstance(prior, dist.Distribution):
            fn = prior(dotted, leaf.shape)
        if fn is not None:
            pairs.append((fn, leaf))
    return pairs
