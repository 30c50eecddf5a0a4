"""The curvature of a subject's joint density at its mode: full, or by the Fisher information."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hierax.data.population import Population
from hierax.infer.blocks import Blocks, Vectors, push_basis, value_gradient_hessian
from hierax.program.density import Observed, Program


def prior_hessian(program: Program, pop: Population, params: Any, eta: Vectors) -> Blocks:
    """Return the exact Hessian of −log prior of the random effects."""
    return value_gradient_hessian(lambda e: -program.log_prior(pop, params, e), eta)[2]


def fisher_hessian(
    program: Program, pop: Population, params: Any, eta: Vectors, frozen: Mapping[str, Array] | None = None
) -> Blocks:
    """Return FOCE's Hessian: Σ Jᵀ I J over the observed sites plus the exact Hessian of −log prior.

    With ``frozen`` scales (no interaction) only the locations depend on the random effects.
    """
    total = prior_hessian(program, pop, params, eta)
    for rows in whitened_jacobian(program, pop, params, eta, frozen).values():
        total = total + jnp.einsum("kne,lne->nkl", rows, rows)
    return total


def whitened_jacobian(
    program: Program, pop: Population, params: Any, eta: Vectors, frozen: Mapping[str, Array] | None = None
) -> dict[str, Float[Array, "coordinate subject element"]]:
    """Return I^½ J of each site, with the Fisher information I and the parameters' derivatives J by every coordinate.

    With ``frozen`` scales the derivatives are those of the locations alone.
    """
    sites = [name for name, site in program.sites.data.items() if not site.factor]

    def parameters(e: Vectors) -> dict[str, tuple[Array, ...]]:
        run = program.run(pop, params, e)
        return {name: _seen(program, run, name).parameters for name in sites}

    values, tangents = push_basis(parameters, eta)
    run = program.run(pop, params, eta)
    real = jnp.asarray(pop.subject_mask)
    out = {}
    for name in sites:
        seen = _seen(program, run, name)
        out[name] = jnp.concatenate(
            _rows(seen, values[name], tangents[name], None if frozen is None else frozen[name]), axis=-1
        )
        out[name] = jnp.where(real[:, None], out[name], 0.0)
    return out


def _seen(program: Program, run: Any, name: str) -> Observed:
    seen = program.observed(run, name)
    assert seen is not None, f"{name} has no information formula; the estimator's checks refuse it"
    return seen


def _rows(
    seen: Observed, values: tuple[Array, ...], tangents: tuple[Array, ...], frozen: Array | None
) -> list[Float[Array, "coordinate subject element"]]:
    """Whiten the tangents of a site, drop masked elements, and bring subjects to the second axis."""
    parameters = values if frozen is None else (values[0], frozen)
    # `whiten` takes one tangent at a time: a leading axis of coordinates would broadcast in elementwise families only.
    whitened = jax.vmap(lambda tangent: seen.family.whiten(parameters, tangent))(tangents)
    if frozen is not None:
        whitened = whitened[:1]
    rows = []
    for part in whitened:
        if seen.mask is not None:
            mask = seen.mask.reshape(seen.mask.shape + (1,) * (part.ndim - 1 - seen.mask.ndim))
            part = jnp.where(mask, part, 0.0)
        if seen.scale is not None:
            part = part * jnp.sqrt(seen.spread_scale(part.ndim - 1))
        moved = jnp.moveaxis(part, seen.axis + 1, 1)
        rows.append(moved.reshape(*moved.shape[:2], math.prod(moved.shape[2:])))
    return rows
