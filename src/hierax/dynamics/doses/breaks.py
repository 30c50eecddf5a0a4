"""Known times at which a vector field jumps: steps of every solver end there."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hierax.data.population import Population

# Smallest distance from the ends of a step at which the vector field is evaluated, as a fraction of the time: a few
# rounding errors, enough to stay on one side of a jump.
_CLEARANCE = 16 * float(np.finfo(float).eps)


def read_breaks(pop: Population, breaks: Any) -> Float[Array, "subject break"] | None:
    """Return the times at which a field jumps, (subject, break); None where there are none.

    Raises
    ------
    ValueError
        If the times have another shape.
    """
    if breaks is None:
        return None
    value = jnp.asarray(breaks, float)
    n = pop.n_subjects
    if value.size == 0:
        return None
    if value.ndim < 2:
        value = value.reshape((1, -1))
    if value.ndim != 2 or value.shape[0] not in (1, n):
        raise ValueError(
            f"breaks has shape {value.shape}, but times at which the vector field jumps are (k,) for all subjects, or "
            f"(subject, k) = ({n}, k), with NaN where a subject has fewer. Check how breaks was computed."
        )
    return jnp.broadcast_to(value, (n, value.shape[1]))


def within_history(pop: Population, breaks: Float[Array, "subject break"], padding: int) -> tuple[Array, Array]:
    """Return times and segments of the breaks; a break before the first or after the last record becomes padding."""
    times, segment = jnp.asarray(pop.times), jnp.asarray(pop.segment)
    at = jax.lax.stop_gradient(breaks)[:, :, None]
    before = (times[:, None, :] <= at).sum(-1)
    inside = (before > 0) & (at[..., 0] < times[:, -1:])
    part = jnp.take_along_axis(segment, jnp.maximum(before - 1, 0), axis=1)
    last = jnp.broadcast_to(times[:, -1:], breaks.shape)
    return jnp.where(inside, breaks, last), jnp.where(inside, part, padding)


def strictly_inside(t: Any, now: Any) -> Any:
    """Return ``t`` moved by a few rounding errors towards ``now``, the middle of the step.

    At the very ends of a step the field may have the value that belongs to the step before or after it.
    """
    apart = _CLEARANCE * jax.lax.stop_gradient(jnp.maximum(jnp.abs(t), jnp.abs(now)))
    return jnp.where(t > now + apart, t - apart, jnp.where(t < now - apart, t + apart, now))
