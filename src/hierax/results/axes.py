"""Names for the axes of a site's values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from hierax.results.individual import active_coordinates

if TYPE_CHECKING:
    from hierax.results.fit import Fit


def labelled(fit: Fit, name: str, values: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of a site's axes, and its values (chain, draw, ...) for the real subjects along these axes.

    The names are ``subject``, then those of the plates, ``record`` for the record axis, and ``<site>_dim`` for the
    event axis (``<site>_dim_0``, ... where there are several). Axes of length one are left out. Values at an occasion
    that a subject does not have are NaN.
    """
    program = fit.program
    effect = program.sites.effects.get(name)
    shape = values.shape[2:]
    if effect is not None:
        axis = effect.axis
        values = _without_absent(fit, name, values)
    else:
        in_plate = name in program.sites.individual
        axis = next((k for k, size in enumerate(shape) if size == fit.pop.n_subjects), None) if in_plate else None
    if axis is None:
        dims = _numbered(name, len(shape))
        return dims, values
    names, kept = _names(fit, name, shape, axis)
    values = np.take(values, fit.rows, axis=2 + axis)
    dropped = tuple(2 + k for k in range(len(shape)) if k not in kept)
    values = np.squeeze(values, dropped)
    # The subjects come first, as they do everywhere else.
    at = 2 + [k for k in kept].index(axis)
    return ("subject", *(names[k] for k in kept if k != axis)), np.moveaxis(values, at, 2)


def _names(fit: Fit, name: str, shape: tuple[int, ...], axis: int) -> tuple[dict[int, str], list[int]]:
    """Return the names of the axes that are kept, by position, and these positions."""
    msg: dict[str, Any] = fit.program.sites.messages[name]
    frames = {frame.name: frame.dim for frame in msg["cond_indep_stack"]}
    dim = frames.get(fit.program.plate, -2)
    # Plates are placed by their dim: its distance from the subject plate's dim is the distance between their axes.
    names = {axis + other - dim: plate for plate, other in frames.items()}
    batch_end = axis - dim
    events = [k for k in range(batch_end, len(shape))]
    names |= dict(zip(events, [f"{name}_dim"] if len(events) == 1 else _numbered(name, len(events)), strict=True))
    for k in range(axis + 1, min(batch_end, len(shape))):
        names.setdefault(k, "record" if shape[k] == fit.pop.n_records > 1 else f"{name}_batch_{k}")
    kept = [k for k, size in enumerate(shape) if k == axis or size > 1 or k in events]
    return {k: names.get(k, f"{name}_batch_{k}") for k in kept}, kept


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}_dim_{k}" for k in range(count))


def _without_absent(fit: Fit, name: str, values: np.ndarray) -> np.ndarray:
    """Return the values of a random effect, with NaN where the program masks its coordinates."""
    program = fit.program
    active, start = active_coordinates(fit), 0
    for other, site in program.sites.effects.items():
        if other == name:
            there = np.asarray(site.unflatten(jnp.asarray(active[:, start : start + site.size])))
            # Rows of padded subjects become NaN too, which does not matter: they are removed later.
            same = there.shape == values.shape[2:]
            return np.where(there, values, np.nan) if same else values
        start += site.size
    return values
