"""Networks whose weights are individual parameters: one vector of random effects a subject moves them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.contrib.module import flax_module

from hierax.nn.network import leaves_of, note

# The random effects' SD before any training, and the SD of the directions' entries.
_SCALE, _DIRECTION = 0.1, 0.3


@dataclasses.dataclass(frozen=True)
class Individual:
    """A network with weights of its own for every subject.

    Attributes
    ----------
    eta : array, (subject, 1, number)
        The random effects, to be passed in the ``args`` of :func:`hierax.solve_ode`.
    at : callable
        Of the inputs of one subject and its ``eta`` (number,), as it is in a vector field.

    Examples
    --------
    >>> curve = weights.at(times, weights.eta)  # doctest: +SKIP
    """

    eta: Float[Array, "subject 1 number"]
    at: Callable[[Array, Array], Array]

    def __call__(self, x: Float[Array, "subject time input"]) -> Float[Array, "subject time output"]:
        """Return every subject's outputs."""
        one = jax.vmap(self.at, in_axes=(0, None))
        return jax.vmap(one)(jnp.asarray(x), self.eta[..., 0, :])


def individualise(
    name: str, module: Any, *, input_shape: tuple[int, ...], which: str | int = "last", scale: float = _SCALE
) -> Individual:
    """Return a network whose weights differ between subjects; to be called inside the subject plate.

    Registers the typical weights ``name$params``, and samples ``name_eta``, one vector of independent normal random
    effects a subject, that is added to the weights.

    Parameters
    ----------
    name : str
        Of the network.
    module : flax.linen.Module
        The network.
    input_shape : tuple of int
        Shape of one input.
    which : str or int
        "all" weights; those of a layer by its name ("last", "hidden_0"); or a number of directions in the space of all
        weights, which are learned with the typical weights.
    scale : float
        SD of the random effects before any training; ``name_omega`` is what it becomes, one for each tensor of weights
        (for directions it is 1, and the directions' lengths are learned).

    Returns
    -------
    Individual
        Call it with inputs by subject; in a vector field, pass its ``eta`` in ``args`` and use its ``at``.

    Notes
    -----
    Try random effects as further inputs of the network first. On a simulated indirect response (60 subjects, FOCE, same
    penalty) two of them reached a log likelihood of 1748, and of 2812 on 100 other subjects, in 9 minutes; a last layer
    of each subject's own (7 random effects) 1715 and 2755 in 55 minutes; two directions 1729 and 2719 in 24 minutes,
    with importance weights that cannot be trusted. By VI alone (3000 steps) the last layer did better than the inputs,
    2747 and 2717: its random effects act linearly.

    Examples
    --------
    >>> weights = hx.nn.individualise('net', hx.nn.MLP(), input_shape=(1,))  # doctest: +SKIP
    """
    plain = flax_module(name, module, input_shape=input_shape)
    weights = plain.args[0]
    note(name, module.apply)
    if isinstance(which, int):
        return _directions(name, module, weights, which)
    leaves, structure = jax.tree.flatten(weights)
    chosen = leaves_of(weights, which, f"individualise('{name}', which='{which}')")
    shapes = [leaves[k].shape for k in chosen]
    sizes = [math.prod(shape) for shape in shapes]
    omega = numpyro.param(f"{name}_omega", jnp.full(len(chosen), scale), constraint=dist.constraints.positive)
    spread = jnp.concatenate([jnp.full(size, omega[k]) for k, size in enumerate(sizes)])
    eta = numpyro.sample(f"{name}_eta", dist.Normal(jnp.zeros(sum(sizes)), spread).to_event(1))

    def at(x: Array, own: Array) -> Array:
        moved, start = list(leaves), 0
        for k, size, shape in zip(chosen, sizes, shapes, strict=True):
            moved[k] = moved[k] + own[start : start + size].reshape(shape)
            start += size
        return module.apply({"params": jax.tree.unflatten(structure, moved)}, x)

    return Individual(eta, at)


def _directions(name: str, module: Any, weights: Any, number: int) -> Individual:
    """Individualise along a few learned directions."""
    if number < 1:
        raise ValueError(f"individualise('{name}', which={number}) has no directions. Give 1 or more.")
    leaves, structure = jax.tree.flatten(weights)
    size = sum(leaf.size for leaf in leaves)

    def first(key: Any) -> dict[str, Array]:
        return {"directions": _DIRECTION * jax.random.normal(key, (number, size))}

    # A dict, as the weights of a network are: without standard errors, and penalised where weights are.
    matrix = numpyro.param(f"{name}_directions$params", lambda key: first(key))["directions"]
    eta = numpyro.sample(f"{name}_eta", dist.Normal(0.0, 1.0).expand([number]).to_event(1))

    def at(x: Array, own: Array) -> Array:
        moved, start, change = [], 0, own @ matrix
        for leaf in leaves:
            moved.append(leaf + change[start : start + leaf.size].reshape(leaf.shape))
            start += leaf.size
        return module.apply({"params": jax.tree.unflatten(structure, moved)}, x)

    return Individual(eta, at)
