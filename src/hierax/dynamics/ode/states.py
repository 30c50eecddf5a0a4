"""The states of an ODE: names, shapes, and the flat array that holds the numbers of all states."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hierax.data.population import Population

# Stands between the parts of a nested name.
_SEPARATOR = "."


@dataclasses.dataclass(frozen=True)
class States:
    """The structure of a state: a pytree of named leaves, each a number or a vector per subject.

    Attributes
    ----------
    tree : PyTreeDef
        Structure of the user's state.
    names : tuple of str
        Name of each leaf.
    sizes : tuple of int or None
        Length of each leaf, None for a number.
    """

    tree: Any
    names: tuple[str, ...]
    sizes: tuple[int | None, ...]

    @property
    def total(self) -> int:
        """How many numbers the state of one subject has."""
        return sum(size or 1 for size in self.sizes)

    def start(self, name: str) -> int:
        """Return where a state begins in the flat array."""
        return sum(size or 1 for size in self.sizes[: self.names.index(name)])

    def labels(self) -> list[str]:
        """Return a name for each number."""
        pairs = zip(self.names, self.sizes, strict=True)
        return [label for name, size in pairs for label in _numbered(name, size)]

    def unpack(self, y: Float[Array, " state"]) -> Any:
        """Return one subject's array as the user's state."""
        leaves, start = [], 0
        for size in self.sizes:
            leaves.append(y[start] if size is None else y[start : start + size])
            start += size or 1
        return jax.tree.unflatten(self.tree, leaves)

    def pack(self, state: Any) -> Float[Array, " state"]:
        """Return the user's state of one subject as an array."""
        parts = [jnp.reshape(jnp.asarray(leaf, float), (-1,)) for leaf in jax.tree.leaves(state)]
        return jnp.concatenate(parts)

    def on_records(self, y: Float[Array, "state subject time"]) -> Any:
        """Return the flat array as leaves (subject, time) or (subject, time, k)."""
        leaves, start = [], 0
        for size in self.sizes:
            part = y[start : start + (size or 1)]
            leaves.append(part[0] if size is None else jnp.moveaxis(part, 0, -1))
            start += size or 1
        return jax.tree.unflatten(self.tree, leaves)


def _numbered(name: str, size: int | None) -> list[str]:
    return [name] if size is None else [f"{name}[{index}]" for index in range(size)]


def read_states(pop: Population, y0: Any) -> tuple[States, Float[Array, "state subject"]]:
    """Return the structure of the state, and the initial state of every subject.

    Raises
    ------
    ValueError
        If there is no state, or a leaf is neither a number, (subject, 1), nor (subject, 1, k).
    """
    pairs, tree = jax.tree_util.tree_flatten_with_path(y0)
    if not pairs:
        raise ValueError("y0 has no states, so there is nothing to solve. Give a dict such as {'depot': 0.0}.")
    names, sizes, rows = [], [], []
    n = pop.n_subjects
    for path, leaf in pairs:
        name = leaf_name(path)
        value = _number(f"y0[{name!r}]", leaf)
        if value.ndim == 3 and value.shape[0] in (1, n) and value.shape[1] == 1:
            size: int | None = value.shape[2]
            row = jnp.broadcast_to(value[:, 0], (n, value.shape[2])).T
        elif value.ndim == 0 or value.shape in ((n, 1), (1, 1)):
            size, row = None, jnp.broadcast_to(value.reshape((-1, 1)), (n, 1)).T
        else:
            raise ValueError(
                f"y0[{name!r}] has shape {value.shape}, but an initial state must be a number, (subject, 1) = "
                f"({n}, 1), or (subject, 1, k), because every subject has one. Use `x[:, None]` for an array of "
                f"shape ({n},)."
            )
        names.append(name)
        sizes.append(size)
        rows.append(row)
    return States(tree, tuple(names), tuple(sizes)), jnp.concatenate(rows)


def leaf_name(path: Any) -> str:
    """Return the name of a leaf: its keys, joined by dots."""
    return jax.tree_util.keystr(path, simple=True, separator=_SEPARATOR)


def _number(what: str, leaf: Any) -> Array:
    try:
        return jnp.asarray(leaf, float)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{what} is a {type(leaf).__name__}, but must be an array of numbers. What is shared by all subjects, "
            f"such as a network, is closed over by the vector field or passed in shared=."
        ) from error
