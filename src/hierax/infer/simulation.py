"""Drawing from the program: random effects from their prior, data from their distributions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from hierax.data.population import Population
from hierax.data.sanitise import sanitise
from hierax.program.density import Program
from hierax.program.read import cached
from hierax.program.trace import RUNNING

# Numbers drawn at once: replicates go through in batches, so that memory stays bounded.
_CHUNK = 2_000_000


def every_record(pop: Population) -> Population:
    """Return the population with every real record open to every endpoint, and no censoring.

    ``observe`` puts constants in place of predictions where there is no datum; predictions and simulations want
    them at all records.
    """
    held = jnp.asarray(pop.record_mask)
    return dataclasses.replace(pop, mask={name: held for name in pop.mask}, cens={}, limit={}, censoring=())


def draw(program: Program, pop: Population, params: Mapping[str, Any], n: int, seed: int) -> dict[str, np.ndarray]:
    """Return ``n`` draws of every data site, individual parameter and random effect, replicates in front.

    The same program runs: its observed sites are unconditioned, its population parameters substituted.
    """
    batch = max(1, min(n, _CHUNK // max(pop.n_subjects * pop.n_records, 1)))
    function = cached(program, ("draw", batch), lambda: jax.jit(_drawer(program, batch)))
    keys = jax.random.split(jax.random.key(seed), -(-n // batch))
    parts = [jax.tree.map(np.asarray, function(key, pop, dict(params))) for key in keys]
    return {name: np.concatenate([part[name] for part in parts])[:n] for name in parts[0]}


def _drawer(program: Program, batch: int) -> Callable[..., dict[str, Any]]:
    wanted = [name for name, site in program.sites.data.items() if not site.factor]
    wanted += [*program.sites.individual, *program.sites.effects]

    def once(key: Any, pop: Population, params: dict[str, Any]) -> dict[str, Any]:
        model = handlers.substitute(handlers.uncondition(program.model), data=params)
        with RUNNING, handlers.trace() as trace:
            handlers.seed(model, key)(pop)
        return {name: trace[name]["value"] for name in wanted}

    def many(key: Any, pop: Population, params: dict[str, Any]) -> dict[str, Any]:
        # Drawn random effects may lie far from those that a grid was placed for: each draw gets its own.
        clean = dataclasses.replace(every_record(sanitise(pop)), grids={})
        return jax.vmap(lambda k: once(k, clean, params))(jax.random.split(key, batch))

    return many
