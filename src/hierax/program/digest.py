"""A hash of what a program computes: of its traced operations, with the values that it closes over."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from hierax.data.population import Population
from hierax.data.sanitise import sanitise
from hierax.program.density import Program
from hierax.program.parameters import layout
from hierax.program.priors import OWN, penalty

# Settings of an operation that say how it is compiled or shown, but do not change what it computes.
_IRRELEVANT = frozenset("name inline donated_invars keep_unused compiler_options_kvs debug_info sharding".split())


def program_digest(program: Program, pop: Population) -> str:
    """Return a short text, a hash, for the densities that a program computes for populations of this shape.

    Start values are no part of it, and neither are names of functions, files or variables.
    """
    # Frozen ODE steps are left out, because a fit places them; they belong neither to the program nor to the data.
    pop = dataclasses.replace(pop, grids={})
    places = layout(program)
    priors = {name: OWN for name, site in program.sites.population.items() if site.prior is not None}

    def densities(pop: Population, flat: Any, eta: Any) -> Any:
        clean = sanitise(pop)
        params = program.constrain(places.unravel(flat))
        run = program.run(clean, params, eta)
        shown = {name: run.messages[name]["value"] for name in program.sites.individual}
        joint = program.log_prior(clean, params, eta, run) + program.log_data(clean, run)
        return joint, penalty(places, priors, flat, clean), shown

    shapes = (
        jax.ShapeDtypeStruct((places.size,), float),
        jax.ShapeDtypeStruct((pop.n_subjects, len(program.effect_names)), float),
    )
    closed = jax.make_jaxpr(densities)(pop, *shapes)
    lines = [*_sites(program), *_operations(closed.jaxpr, closed.consts)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _sites(program: Program) -> Iterator[str]:
    """Yield one line per site with what traced operations do not show, such as names and constraints."""
    for name, site in program.sites.population.items():
        yield f"{name} {site.kind} {site.shape} {site.constraint}"
    for name, effect in program.sites.effects.items():
        yield f"{name} {effect.distribution} {effect.label} {effect.names} {effect.plates}"
    for name, data in program.sites.data.items():
        yield f"{name} {data.distribution} {data.dim} {data.factor}"


def _needed(jaxpr: Any) -> list[Any]:
    """Return the operations that the results depend on, without those that only compute unused start values."""
    wanted, kept = set(filter(_is_variable, jaxpr.outvars)), []
    for equation in reversed(jaxpr.eqns):
        if wanted.intersection(equation.outvars):
            kept.append(equation)
            wanted.update(filter(_is_variable, equation.invars))
    return kept[::-1]


def _is_variable(atom: Any) -> bool:
    return not hasattr(atom, "val")


def _operations(jaxpr: Any, constants: Sequence[Any] = ()) -> Iterator[str]:
    """Yield lines that describe each operation, with variables numbered in order of appearance."""
    numbers: dict[Any, int] = {}
    values = {variable: _array(value) for variable, value in zip(jaxpr.constvars, constants, strict=True)}

    def name(variable: Any) -> str:
        if not _is_variable(variable):
            return _array(variable.val)
        if variable in values:
            return values[variable]
        return f"{numbers.setdefault(variable, len(numbers))}:{getattr(variable.aval, 'str_short', lambda: '')()}"

    yield " ".join(map(name, jaxpr.invars))
    for equation in _needed(jaxpr):
        yield f"{equation.primitive.name} {' '.join(map(name, equation.invars))}"
        for key in sorted(equation.params):
            if key not in _IRRELEVANT:
                yield from _setting(key, equation.params[key])
        yield "= " + " ".join(map(name, equation.outvars))
    yield "returns " + " ".join(map(name, jaxpr.outvars))


def _setting(key: str, value: Any) -> Iterator[str]:
    """Yield lines that describe a setting of an operation; functions in it are described by their operations."""
    if hasattr(value, "eqns") and not hasattr(value, "consts"):
        yield f"{key}:"
        yield from _operations(value)
    elif hasattr(value, "jaxpr") and hasattr(value, "consts"):
        yield f"{key}:"
        yield from _operations(value.jaxpr, value.consts)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _setting(key, part)
    elif isinstance(value, np.ndarray | jax.Array):
        yield f"{key} {_array(value)}"
    elif not callable(value) or isinstance(value, type | np.dtype):
        # Callable settings are left out: they say how to differentiate, and what is computed is in the operations.
        yield f"{key} {re.sub(r' at 0x[0-9a-f]+', '', repr(value))}"


def _array(value: Any) -> str:
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    array = np.ascontiguousarray(value)
    return f"{array.dtype}{list(array.shape)}{hashlib.sha256(array.tobytes()).hexdigest()[:16]}"
