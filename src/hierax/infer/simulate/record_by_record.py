"""Programs that read earlier observations (AR(1), Markov models), and drawing their data record by record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hierax.data.population import ARRAYS, Population
from hierax.errors import ModelError
from hierax.program.density import Program
from hierax.program.read import cached

Values = dict[str, Any]
Once = Callable[[Any, Population, Mapping[str, Any]], Values]

# Relative difference up to which values of two runs of the same operations count as the same: last bits may differ.
_SAME = 1e-6


def depends(closed: Any, inputs: Sequence[bool]) -> list[bool]:
    """Return which outputs of a jaxpr depend on any of the marked inputs.

    Called functions are looked into. Every output of a loop or branch counts as depending on all of its inputs, so that
    an output may be marked although it does not depend on the inputs, but never the reverse.
    """
    jaxpr = closed.jaxpr if hasattr(closed, "jaxpr") else closed
    marked = {id(var) for var, mark in zip(jaxpr.invars, inputs, strict=True) if mark}
    for equation in jaxpr.eqns:
        marks = [id(var) in marked for var in equation.invars]
        if not any(marks):
            continue
        inner = next((equation.params[key] for key in ("jaxpr", "call_jaxpr") if key in equation.params), None)
        found = [True] * len(equation.outvars)
        body = getattr(inner, "jaxpr", inner)
        is_call = equation.primitive.name not in ("scan", "while", "cond")
        if body is not None and is_call and len(body.invars) == len(marks) and len(body.outvars) == len(found):
            found = depends(inner, marks)
        marked |= {id(var) for var, mark in zip(equation.outvars, found, strict=True) if mark}
    return [id(var) in marked for var in jaxpr.outvars]


def sites_that_read_data(program: Program, pop: Population, once: Once) -> frozenset[str]:
    """Return the sites that ``once`` draws whose values depend on observations of the population.

    An endpoint that the program does not observe is a covariate to it, and may be read.
    """
    observed = [name for name in pop.dv if name in program.sites.data] or list(pop.dv)

    def is_observed(path: Any) -> bool:
        text = [getattr(key, "key", getattr(key, "name", getattr(key, "idx", None))) for key in path]
        return text in [["dv", name] for name in observed] or text == ["records", "dv"]

    def find() -> frozenset[str]:
        arguments = (jax.random.key(0), _named(pop), program.start())

        def run(key: Any, arrays: Any, params: Any) -> Values:
            return once(key, dataclasses.replace(pop, **arrays), params)

        closed, shapes = jax.make_jaxpr(run, return_shape=True)(*arguments)
        leaves = jax.tree_util.tree_flatten_with_path(arguments)[0]
        marks = [path[0].idx == 1 and is_observed(path[1:]) for path, _ in leaves]
        names = [path[0].key for path, _ in jax.tree_util.tree_flatten_with_path(shapes)[0]]
        found = depends(closed, marks)
        return frozenset(name for name, mark in zip(names, found, strict=True) if mark)

    return cached(program, ("reads data", id(once)), lambda: (find(), once))[0]


def _named(pop: Population) -> dict[str, Any]:
    """Return the arrays of a population by name; its own flattening as a pytree does not keep the names."""
    return {name: getattr(pop, name) for name in ARRAYS}


def refuse_what_cannot_be_drawn(program: Program, pop: Population, reading: frozenset[str]) -> None:
    """Refuse programs whose use of earlier observations cannot be drawn record by record.

    Raises
    ------
    ModelError
        Names the sites, and says how to write it.
    """
    effects = sorted(reading & set(program.sites.effects))
    if effects:
        raise ModelError(
            f"The random effects {effects} depend on observations (pop.dv), so that they cannot be drawn before the "
            f"data are. Give them a distribution that does not depend on the data. Pass a measured baseline as a "
            f"covariate, or by pop.with_data(baseline=...)."
        )
    foreign = [
        name
        for name, site in program.sites.data.items()
        if not site.factor and (name not in pop.dv or tuple(_shape(program, name)) != (pop.n_subjects, pop.n_records))
    ]
    if foreign:
        raise ModelError(
            f"The program reads pop.dv, so that its data are drawn record by record. For this, each data site must "
            f"be an endpoint of the population, which has {list(pop.dv)}, but {foreign} are not. Write "
            f"hx.observe('{next(iter(pop.dv))}', distribution, pop), or give the site its endpoint's name."
        )
    censored = [name for name, _ in pop.censoring if name in program.sites.data]
    if censored:
        raise ModelError(
            f"The program reads earlier observations, but {censored} has censored ones. The value beyond the limit, "
            f"on which the next record depends, is not known. Simulate at a design without data, pop.at_times(...)."
        )


def _shape(program: Program, name: str) -> tuple[int, ...]:
    fn = program.sites.messages[name]["fn"]
    return tuple(fn.batch_shape) + tuple(fn.event_shape)


def open_records(pop: Population, names: Sequence[str]) -> dict[str, Array]:
    """Return which records are drawn, by endpoint: its observations, or all without a dose if it has none.

    Records of doses are not drawn, as they were no data when the program was fitted: the program reads there what it
    read then.
    """
    held = jnp.asarray(pop.record_mask) & jnp.asarray(pop.subject_mask)[:, None]
    if "evid" in pop.records:
        # A missing EVID becomes −1, which counts as neither an observation nor a dose.
        held = held & jnp.isin(jnp.nan_to_num(jnp.asarray(pop.records["evid"]), nan=-1.0), jnp.array([0.0, 2.0]))
    masks = {name: jnp.asarray(pop.mask[name]) & jnp.asarray(pop.subject_mask)[:, None] for name in names}
    return {name: jnp.where(mask.any(), mask, held) for name, mask in masks.items()}


def record_by_record(
    once: Once, key: Any, pop: Population, params: Mapping[str, Any], names: Sequence[str]
) -> tuple[Values, Array]:
    """Draw data in the order of the records, each given what was drawn before it.

    Every turn runs the whole program with the same key, so that random effects stay the same, and keeps the values of
    one record. A last turn shows whether the program, given all drawn values, draws the same values again.

    Returns
    -------
    values
        What ``once`` returns; data are NaN where no record was drawn.
    consistent : bool
        Whether no record depends on itself or on a later one.
    """
    opened = open_records(pop, names)
    masks = {**pop.mask, **opened}
    place = jnp.arange(pop.n_records)

    def run(dv: Mapping[str, Array]) -> Values:
        records = dict(pop.records)
        if "dv" in records:
            drawn = [jnp.where(masks[name], dv[name], 0.0) for name in dv]
            any_open = jnp.stack([masks[name] for name in dv]).any(0)
            records["dv"] = jnp.where(any_open, jnp.stack(drawn).sum(0), jnp.asarray(records["dv"]))
        return once(key, dataclasses.replace(pop, dv=dict(dv), mask=masks, records=records), params)

    def turn(number: Any, carry: tuple[Values, Values]) -> tuple[Values, Values]:
        dv, _ = carry
        out = run(dv)
        now = {name: opened[name] & (place == number) for name in names}
        fresh = {name: jnp.where(now[name], out[name].astype(dv[name].dtype), dv[name]) for name in names}
        return {**dv, **fresh}, out

    dv = {name: jnp.asarray(value, float) for name, value in pop.dv.items()}
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(run, dv))
    dv, out = jax.lax.fori_loop(0, pop.n_records + 1, turn, (dv, nothing))
    same = [jnp.where(opened[n], jnp.isclose(dv[n], out[n], rtol=_SAME, equal_nan=True), True).all() for n in names]
    shown = {name: jnp.where(opened[name], dv[name], jnp.nan) for name in names}
    return {**out, **shown}, jnp.stack(same).all()


def refuse_noncausal(consistent: np.ndarray, reading: frozenset[str]) -> None:
    """Refuse draws in which a record depends on itself or on a later one.

    Raises
    ------
    ModelError
        Names the sites.
    """
    if not consistent.all():
        raise ModelError(
            f"The distribution at a record of {sorted(reading)} depends on the observation (pop.dv) of that record "
            f"itself or of a later one, so that there is no order in which the data could be drawn. Read the "
            f"observations before the record alone, e.g. jnp.roll(pop.dv['dv'], 1, axis=1) with the first record set "
            f"apart. Pass a measured baseline by pop.with_data(baseline=...)."
        )
