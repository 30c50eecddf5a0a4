"""Drawing from the program: random effects from their prior, data from their distributions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from hierax.arguments import whole
from hierax.data.population import Population
from hierax.data.sanitise import sanitise
from hierax.infer.run.own_number import key_of_program
from hierax.infer.simulate.record_by_record import (
    record_by_record,
    refuse_noncausal,
    refuse_what_cannot_be_drawn,
    sites_that_read_data,
)
from hierax.program.density import Program
from hierax.program.parameters import layout
from hierax.program.read import cached
from hierax.program.trace import RUNNING

# Largest number of values (replicates × subjects × records) that are drawn at once: replicates are drawn in batches, so
# that memory stays bounded.
_CHUNK = 2_000_000
# Name under which a batch says whether its records could be drawn in order.
_CONSISTENT = "records drawn in order"


def every_record(pop: Population) -> Population:
    """Return the population with every real record open to every endpoint, and no censoring.

    ``observe`` puts constants in place of predictions at records without an observation, but predictions and
    simulations are wanted at all records.
    """
    held = jnp.asarray(pop.record_mask)
    return dataclasses.replace(pop, mask={name: held for name in pop.mask}, cens={}, limit={}, censoring=())


def draw(
    program: Program,
    pop: Population,
    params: Mapping[str, Any],
    n: int,
    seed: int,
    *,
    flats: np.ndarray | None = None,
    sites: Collection[str] | None = None,
) -> dict[str, np.ndarray]:
    """Return ``n`` draws of every data site, individual parameter and random effect, replicates in front.

    The same program runs as in a fit, with its observed sites unconditioned and its population parameters substituted.
    Where a wanted site depends on observations of the population, data are drawn record by record, each given those
    drawn before it.

    Parameters
    ----------
    flats : array, (n, parameter), optional
        The unconstrained population parameters of every replicate; ``params`` then replaces some of them.
    sites : collection of str, optional
        The sites that are wanted; all by default.
    """
    whole("n", n, 1)
    whole("seed", seed, 0)
    once = _once(program, sites)
    reading = sites_that_read_data(program, pop, once)
    if reading:
        refuse_what_cannot_be_drawn(program, pop, reading)
        once = _once(program, None)
    batch = max(1, min(n, _CHUNK // max(pop.n_subjects * pop.n_records, 1)))
    wanted = None if reading or sites is None else tuple(sorted(sites))
    known = ("draw", batch, wanted, bool(reading), flats is not None)
    function = cached(
        program, known, lambda: (jax.jit(_drawer(program, once, batch, bool(reading), flats is not None)), once)
    )[0]
    keys = jax.random.split(key_of_program(program, seed), -(-n // batch))
    parts = []
    for number, key in enumerate(keys):
        rows = None if flats is None else jnp.asarray(flats[np.arange(number * batch, (number + 1) * batch) % n])
        parts.append(jax.tree.map(np.asarray, function(key, pop, dict(params), rows)))
    out = {name: np.concatenate([part[name] for part in parts])[:n] for name in parts[0]}
    if reading:
        refuse_noncausal(out.pop(_CONSISTENT), reading)
    return out if sites is None else {name: out[name] for name in sites}


def reads_data(program: Program, pop: Population) -> frozenset[str]:
    """Return the sites whose values depend on observations of the population: data of an AR(1) or Markov model."""
    return sites_that_read_data(program, pop, _once(program, None))


def _once(program: Program, sites: Collection[str] | None) -> Callable[..., dict[str, Any]]:
    """Return the function that draws one replicate; always the same object, because compiled functions hold it."""
    wanted = [name for name, site in program.sites.data.items() if not site.factor]
    wanted += [*program.sites.individual, *program.sites.effects]
    kept = tuple(name for name in wanted if sites is None or name in sites)

    def once(key: Any, pop: Population, params: Mapping[str, Any]) -> dict[str, Any]:
        model = handlers.substitute(handlers.uncondition(program.model), data=dict(params))
        # Drawn random effects may lie far from those for which a grid of time steps was placed: each draw gets its own.
        clean = dataclasses.replace(pop, grids={}, cens={}, limit={}, censoring=())
        with RUNNING, handlers.trace() as trace:
            handlers.seed(model, key)(clean)
        return {name: trace[name]["value"] for name in kept}

    return cached(program, ("draw once", kept), lambda: once)


def _drawer(
    program: Program, once: Callable[..., dict[str, Any]], batch: int, in_order: bool, by_draw: bool
) -> Callable[..., dict[str, Any]]:
    unravel = layout(program).unravel
    names = [name for name in program.sites.data if not program.sites.data[name].factor]

    def one(key: Any, pop: Population, params: dict[str, Any], flat: Any) -> dict[str, Any]:
        if by_draw:
            params = {**program.constrain(unravel(flat)), **params}
        if not in_order:
            return once(key, every_record(pop), params)
        values, consistent = record_by_record(once, key, pop, params, names)
        return {**values, _CONSISTENT: consistent}

    def many(key: Any, pop: Population, params: dict[str, Any], flats: Any) -> dict[str, Any]:
        clean, keys = sanitise(pop), jax.random.split(key, batch)
        return jax.vmap(lambda k, flat: one(k, clean, params, flat), in_axes=(0, 0 if by_draw else None))(keys, flats)

    return many
