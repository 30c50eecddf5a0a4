"""Networks whose weights are individual parameters, moved by one vector of random effects per subject."""

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

# Initial SD of the random effects, and SD of the random numbers at which the entries of the directions start.
_SCALE, _DIRECTION = 0.1, 0.3


@dataclasses.dataclass(frozen=True)
class Individual:
    """A network with weights of its own for every subject.

    Attributes
    ----------
    eta : array, (subject, 1, number)
        The random effects, to be passed in the ``args`` of :func:`hierax.solve_ode`.
    at : callable
        Function of one subject's inputs and its ``eta``, (number,), for use in a vector field.

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
    """Return a network whose weights differ between subjects; call it inside the subject plate.

    It registers the typical weights ``name$params``, and samples ``name_eta``: for each subject a vector of independent
    normal random effects, by which the subject's weights differ from the typical ones.

    Parameters
    ----------
    name : str
        Name of the network.
    module : flax.linen.Module
        The network.
    input_shape : tuple of int
        Shape of one input.
    which : str or int
        Which weights differ. "all": every weight. The name of a layer ("last", "hidden_0"): those of that layer. A
        whole number k: every weight, but only along k directions in the space of all weights. The directions are
        learned together with the typical weights, and a subject then has k random effects.
    scale : float
        Initial estimate of the SD of the random effects. The SDs (not variances) are estimated as ``name_omega``, one
        for each array of weights (a layer's kernel or bias). Not used with directions: there the SD is 1, and the
        lengths of the directions are learned instead.

    Returns
    -------
    Individual
        Call it with inputs by subject; in a vector field, pass its ``eta`` in ``args`` and use its ``at``.

    Notes
    -----
    Try random effects as further inputs of the network first. On a simulated indirect response (60 subjects, FOCE, same
    penalty), two random effects as inputs reached a log likelihood of 1748 in the fit, and of 2812 on 100 other
    subjects, in 9 minutes. A last layer for each subject (7 random effects) reached 1715 and 2755 in 55 minutes; two
    directions reached 1729 and 2719 in 24 minutes, with importance weights that cannot be trusted. By VI alone (3000
    steps) the last layer was better on the other subjects (2747) than the inputs (2717), because its random effects act
    linearly.

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
    omega: Any = numpyro.param(f"{name}_omega", jnp.full(len(chosen), scale), constraint=dist.constraints.positive)
    spread = jnp.concatenate([jnp.full(size, omega[k]) for k, size in enumerate(sizes)])
    eta: Any = numpyro.sample(f"{name}_eta", dist.Normal(jnp.zeros(sum(sizes)), spread).to_event(1))

    def at(x: Array, own: Array) -> Array:
        moved, start = list(leaves), 0
        for k, size, shape in zip(chosen, sizes, shapes, strict=True):
            moved[k] = moved[k] + own[start : start + size].reshape(shape)
            start += size
        return module.apply({"params": jax.tree.unflatten(structure, moved)}, x)

    return Individual(eta, at)


def _directions(name: str, module: Any, weights: Any, number: int) -> Individual:
    """Return a network whose weights differ between subjects along a few learned directions."""
    if number < 1:
        raise ValueError(f"individualise('{name}', which={number}) needs 1 direction or more.")
    leaves, structure = jax.tree.flatten(weights)
    size = sum(leaf.size for leaf in leaves)

    def first(key: Any) -> dict[str, Array]:
        return {"directions": _DIRECTION * jax.random.normal(key, (number, size))}

    # The directions are registered as a dict, like the weights of a network, so that they get no standard errors and
    # are penalised with the weights.
    weights_of_directions: Any = numpyro.param(f"{name}_directions$params", lambda key: first(key))
    matrix = weights_of_directions["directions"]
    eta: Any = numpyro.sample(f"{name}_eta", dist.Normal(0.0, 1.0).expand([number]).to_event(1))

    def at(x: Array, own: Array) -> Array:
        moved, start, change = [], 0, own @ matrix
        for leaf in leaves:
            moved.append(leaf + change[start : start + leaf.size].reshape(leaf.shape))
            start += leaf.size
        return module.apply({"params": jax.tree.unflatten(structure, moved)}, x)

    return Individual(eta, at)
