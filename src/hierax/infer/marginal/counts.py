"""How many observations a program uses, and how many of them count for the constant of the OFV."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from hierax.data.population import Population
from hierax.program.density import Program, untransform, unwrap
from hierax.program.families import find_family
from hierax.program.read import cached


def count_observations(program: Program, pop: Population, params: Mapping[str, Any]) -> tuple[int, int]:
    """Return the numbers of unmasked scalar observations, and of those that are (log-)normal and not censored."""
    function = cached(program, "count", lambda: jax.jit(lambda p, v: _count(program, p, v)))
    total, gaussian = function(pop, dict(params))
    return int(total), int(gaussian)


def _count(program: Program, pop: Population, params: Mapping[str, Any]) -> tuple[Array, Array]:
    run = program.run(pop, params, None)
    total, gaussian = jnp.zeros((), int), jnp.zeros((), int)
    for name, site in program.sites.data.items():
        if site.factor:
            continue
        msg = run.messages[name]
        mask, fn = unwrap(msg["fn"])
        exact, base = _exact(fn, msg["value"], pop.cens.get(name))
        family = find_family(untransform(unwrap(base)[1], jnp.ones(()))[0])
        # The two ends of an interval are one observation.
        shape = tuple(msg["fn"].batch_shape) + (() if base is not fn else tuple(msg["fn"].event_shape))
        axis = len(msg["fn"].batch_shape) + site.dim
        real = jnp.asarray(pop.subject_mask).reshape((-1,) + (1,) * (len(shape) - axis - 1))
        seen = jnp.broadcast_to(real, shape)
        if mask is not None:
            seen = seen & jnp.asarray(mask).reshape(jnp.shape(mask) + (1,) * (len(shape) - jnp.ndim(mask)))
        total = total + jnp.sum(seen)
        if family is not None and family.log_prob is not None:
            gaussian = gaussian + jnp.sum(seen & exact)
    return total, gaussian


def _exact(fn: Any, value: Any, cens: Any) -> tuple[Array, Any]:
    """Return which observations are not censored, and the distribution that the censoring wraps."""
    if hasattr(fn, "censored"):
        return ~fn.censored, fn.base_dist
    if hasattr(fn, "left_censored"):
        point = value[..., 0] == value[..., 1] if cens is None else jnp.asarray(cens) == 0
        return point & ~fn.left_censored & ~fn.right_censored, fn.base_dist
    return jnp.ones((), bool), fn
