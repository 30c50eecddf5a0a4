"""Checking the shapes of individual parameters before they are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hierax.data.population import Population


def individual(pop: Population, name: str, value: Any, *, varying: bool = False) -> Float[Array, "subject time"]:
    """Return a parameter as ``(subject, 1)`` or ``(1, 1)``; with ``varying`` also as ``(subject, time)``.

    Raises
    ------
    ValueError
        If the value has any other shape; the message names the broadcasting that usually leads to it.
    """
    value = jnp.asarray(value, float)
    n, t = pop.n_subjects, pop.n_records
    if value.ndim == 0:
        return value[None, None]
    if value.shape in ((n, 1), (1, 1)):
        return value
    # (subject, subject) is a slip of broadcasting. With as many records as subjects it cannot be told from (subject,
    # time), which ``varying`` allows.
    slip = value.shape == (n, n) and n > 1
    if varying and value.shape == (n, t):
        return value
    may = f"(subject, 1) = ({n}, 1)" + (f" or (subject, time) = ({n}, {t})" if varying else "")
    what = f"{name} has shape {value.shape}, but an individual parameter must be {may}"
    if slip:
        raise ValueError(
            f"{what}. (subject, subject) comes from broadcasting (subject, 1) with an array of shape (subject,), as in "
            f"`eta[..., 0] * x`. Use `x[:, None]`, or a covariate of the population, which is (subject, 1)."
        )
    if value.shape == (n,):
        raise ValueError(f"{what}, because the record axis is the last one. Use `{name}[:, None]`.")
    raise ValueError(f"{what}, because doses and records are batched over subjects. Check how {name} was computed.")


def structural(pop: Population, name: str, value: Any) -> Float[Array, "subject time"]:
    """Return a parameter of a closed form, which may change from record to record.

    Raises
    ------
    ValueError
        If a parameter changes between records, and the population names no interpolation or a linear one.
    """
    # Without an interpolation a parameter by record is refused below. If there are as many records as subjects,
    # ``individual`` refuses it, because its shape is then more likely to be a slip of broadcasting.
    value = individual(pop, name, value, varying=pop.interpolation is not None or pop.n_subjects != pop.n_records)
    if value.shape[1] == 1 or pop.n_records == 1:
        return value
    if pop.interpolation is None:
        raise ValueError(
            f"{name} changes between records, because it is (subject, time) = {value.shape}, but no rule says which "
            f"value holds between two records. Name read_nonmem(interpolation='nocb') (NONMEM's rule), 'locf' or "
            f"'midpoint'; or make {name} (subject, 1)."
        )
    if pop.interpolation == "linear":
        raise ValueError(
            f"{name} changes along straight lines between records (interpolation='linear'), and a closed form needs "
            f"constants there. Use hx.solve_ode, or interpolation='nocb', 'locf' or 'midpoint'."
        )
    return value


def per_dose(pop: Population, name: str, value: Any, default: float) -> Float[Array, "subject dose"]:
    """Return a dose parameter (F, lag, rate, duration) at every dose: the value at its record.

    Parameters
    ----------
    value : array or mapping
        ``(subject, 1)``, or ``(subject, time)`` by record; or a mapping from compartment (number or name) to such an
        array, with ``default`` for compartments that are not in it.
    """
    events = pop.events
    record, compartment = jnp.asarray(events.record), jnp.asarray(events.compartment)
    if not isinstance(value, Mapping):
        return _at_records(individual(pop, name, value, varying=True), record)
    out = jnp.full(record.shape, default, float)
    for key, part in value.items():
        number = compartment_number(pop, name, key)
        part = _at_records(individual(pop, f"{name}[{key!r}]", part, varying=True), record)
        out = jnp.where(compartment == number, part, out)
    return out


def compartment_number(pop: Population, name: str, key: Any) -> int:
    """Return the number of a compartment that is given by number or name."""
    if isinstance(key, int | np.integer):
        return int(key)
    names = dict(pop.compartment_names)
    if key not in names:
        raise ValueError(
            f"{name} names the compartment {key!r}, but the population's compartments are {names}. "
            f"Use its number, or name it in read_nonmem(compartments=...)."
        )
    return names[key]


def _at_records(value: Array, record: Array) -> Array:
    if value.shape[1] == 1:
        return jnp.broadcast_to(value, record.shape)
    return jnp.take_along_axis(jnp.broadcast_to(value, (record.shape[0], value.shape[1])), record, axis=1)
