"""Evaluating many subjects a few hundred at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from hierax.data.population import Population
from hierax.infer.blocks import Vectors

# The largest number of subjects that are evaluated together: enough to keep the processor busy, and so few that their
# arrays stay in its cache and that a subject whose mode takes long to find does not hold up many others.
CHUNK = 512


def by_chunks(
    evaluate: Callable[[Array, Vectors, Population], Any],
    merge: Callable[[Any], Any],
    flat: Array,
    eta: Vectors,
    pop: Population,
) -> Any:
    """Return ``evaluate(flat, eta, pop)``, chunk by chunk where there are many subjects.

    ``merge`` joins outputs that have a leading axis of chunks, and cuts off the padded subjects at the end.
    """
    n = pop.n_subjects
    if n <= CHUNK:
        return evaluate(flat, eta, pop)
    count = -(-n // CHUNK)
    # The size is evened out over the chunks, which leaves fewer padded rows in the last one.
    size = -(-n // count)
    index = jnp.arange(count * size).reshape(count, size)
    rows, held = jnp.minimum(index, n - 1), index < n

    def part(pair: tuple[Array, Array]) -> Any:
        rows, held = pair
        some = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], pop)
        some = dataclasses.replace(some, subject_mask=some.subject_mask & held)
        return evaluate(flat, eta[rows], some)

    return merge(jax.lax.map(part, (rows, held)))
