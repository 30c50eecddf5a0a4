"""Checking the shapes of individual parameters before they are used."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from hierax.data.population import Population


def individual(pop: Population, name: str, value: Any) -> Float[Array, "subject 1"]:
    """Return a parameter of a structural model as ``(subject, 1)`` or ``(1, 1)``.

    Raises
    ------
    ValueError
        Any other shape, with the broadcasting that usually leads to it.
    """
    value = jnp.asarray(value, float)
    n, t = pop.n_subjects, pop.n_records
    if value.ndim == 0:
        return value[None, None]
    if value.shape in ((n, 1), (1, 1)):
        return value
    what = f"{name} has shape {value.shape}, but an individual parameter must be (subject, 1) = ({n}, 1)"
    if value.shape == (n, n) and n > 1:
        raise ValueError(
            f"{what}. (subject, subject) comes from broadcasting (subject, 1) with an array of shape (subject,), as in "
            f"`eta[..., 0] * x`. Use `x[:, None]`, or a covariate of the population, which is (subject, 1)."
        )
    if value.shape == (n,):
        raise ValueError(f"{what}, because the record axis is the last one. Use `{name}[:, None]`.")
    if value.shape == (n, t):
        raise ValueError(
            f"{what}, because the closed form holds parameters constant in a subject, and this one changes "
            f"between records. Use the covariate's first value, or a model of one constant parameter."
        )
    raise ValueError(f"{what}, because doses and records are batched over subjects. Check how {name} was computed.")
