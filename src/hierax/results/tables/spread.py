"""Standard deviations and correlations of random effects and of covariance parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hierax.data.population import Population
from hierax.data.sanitise import sanitise
from hierax.program.density import Program
from hierax.program.parameters import Layout
from hierax.program.read import cached

_COVARIANCES = ("LowerCholesky", "PositiveDefinite")


def moments_of(omega: Float[Array, "d d"]) -> tuple[Array, Array]:
    """Return the standard deviations of a covariance matrix, and the correlations below its diagonal, row by row."""
    sd = jnp.sqrt(jnp.diagonal(omega))
    return sd, (omega / sd[:, None] / sd[None, :])[np.tril_indices(omega.shape[0], -1)]


def prior_moments(
    program: Program, layout: Layout, flat: Any, pop: Population, row: int
) -> tuple[Float[Array, " coordinate"], Float[Array, " pair"]]:
    """Return SDs and correlations of one subject's random effects, in working coordinates."""
    params = program.constrain(layout.unravel(flat))
    clean = sanitise(pop)
    root = program.prior_root(clean, params, program.reference(clean, params))[row]
    return moments_of(root @ root.T)


def matrix_moments(program: Program, layout: Layout, name: str, flat: Any) -> tuple[Array, Array]:
    """Return SDs and correlations of a covariance parameter, which may be written as its Cholesky factor."""
    value = program.constrain(layout.unravel(flat))[name]
    factor = program.sites.population[name].constraint == "LowerCholesky"
    return moments_of(value @ value.T if factor else value)


def matrices_apart(
    program: Program, layout: Layout, flat: Float[np.ndarray, " parameter"], pop: Population, row: int
) -> list[str]:
    """Return the covariance parameters that the distribution of random effects does not depend on.

    A program may draw z from a standard normal distribution and use L @ z. In this case L describes how subjects
    differ, and the prior of z does not depend on it.
    """
    sites = program.sites.population.items()
    names = [name for name, site in sites if site.constraint in _COVARIANCES and len(site.shape) == 2]
    if not names:
        return []

    def moved(flat: Any, way: Any, pop: Any) -> Any:
        return jax.jvp(lambda at: prior_moments(program, layout, at, pop, row), (flat,), (way,))[1]

    function = cached(program, ("moved moments", row), lambda: jax.jit(moved))
    rng, out = np.random.default_rng(0), []
    for name in names:
        # The derivative along a random direction of the parameter's entries is zero only where all derivatives are.
        way = np.zeros(layout.size)
        place = layout.slices[name]
        way[place] = rng.normal(size=place.stop - place.start)
        change = function(jnp.asarray(flat, float), way, pop) if program.effect_names else ()
        if not any(np.abs(np.asarray(one)).max(initial=0.0) > 0 for one in change):
            out.append(name)
    return out


def pairs(names: list[str] | tuple[str, ...]) -> list[str]:
    """Return the labels of correlations, in the order of :func:`moments_of`."""
    rows, columns = np.tril_indices(len(names), -1)
    return [f"corr({names[i]}, {names[j]})" for i, j in zip(rows, columns, strict=True)]


def part_names(program: Program, name: str) -> list[str]:
    """Return names for the rows of a matrix parameter: ``L[0]``, ``L[1]``, ..."""
    return [f"{name}[{index}]" for index in range(program.sites.population[name].shape[0])]
