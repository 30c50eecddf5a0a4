"""Notes on dose parameters: those that no dose uses, and lags longer than the dosing interval II."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp

from hierax.data.events import MODELLED_DURATION, MODELLED_RATE
from hierax.data.population import Population
from hierax.dynamics.doses.arguments import compartment_number
from hierax.dynamics.doses.inputs import Inputs
from hierax.dynamics.notes import Note

_LONG_LAG = (
    "lag is longer than II at a steady-state dose (SS) of {subjects}, and programs differ in what that means. Hierax "
    "assumes that the regimen has always been given and that every dose arrives one lag late, so that earlier doses "
    "still arrive after the SS record. NONMEM has another convention, and its predictions may differ greatly (83 % "
    "was seen). Keep lag below II (by an upper bound), or give the doses one by one instead of SS."
)


def dose_notes(pop: Population, inputs: Inputs, given: Mapping[str, Any], route: int = 1) -> Iterator[Note]:
    """Return the notes on dose parameters, given by name (``F``, ``lag``, ``rate``, ``duration``, ``Tk0``)."""
    there = set(pop.events.compartments) if pop.events.time.shape[1] else set()
    for name, value in given.items():
        if value is None:
            continue
        which, kind = _reached(pop, name, there, route)
        unused = sorted(_compartments(pop, name, value) - which) if isinstance(value, Mapping) else []
        if not which:
            yield Note(f"{name} does nothing with these data, because there are no {kind}.", harmless=True)
        elif unused:
            where = f"{name} for compartment {_listed(unused)}"
            yield Note(f"{where} does nothing with these data, because there are no {kind} into it.", harmless=True)
    if inputs.steady_states and given.get("lag") is not None:
        late = inputs.periodic & (inputs.arrival - inputs.time > inputs.interval)
        yield Note(_LONG_LAG, jnp.any(late, axis=1) & jnp.asarray(pop.subject_mask))


def _reached(pop: Population, name: str, there: set[int], route: int) -> tuple[set[int], str]:
    """Return the compartments with doses that a parameter acts on, and how a message calls such doses."""
    for kind, of in ((MODELLED_RATE, "rate"), (MODELLED_DURATION, "duration")):
        if name == of:
            return {number for known, number in pop.events.modelled_kinds if known == kind}, f"doses with RATE -{kind}"
    return (there & {route}, f"doses into CMT {route}") if name == "Tk0" else (there, "doses")


def _compartments(pop: Population, name: str, value: Mapping[Any, Any]) -> set[int]:
    return {compartment_number(pop, name, key) for key in value}


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
