"""Small dense networks, which are smooth, and whose outputs are near zero before any training."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as linen
import jax
from jaxtyping import Array, Float

# The activation functions that a user may name.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "softplus": jax.nn.softplus,
    "tanh": jax.numpy.tanh,
    "swish": jax.nn.swish,
    "sigmoid": jax.nn.sigmoid,
}


def activation(name: str) -> Callable[[Array], Array]:
    """Return an activation function by its name."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation='{name}' is not known. Use one of {sorted(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


class MLP(linen.Module):
    """Dense layers, (..., input) → (..., output); the outputs are near zero before any training.

    Parameters
    ----------
    outputs : int
        Number of outputs.
    width, depth : int
        Units of a hidden layer, and number of hidden layers.
    activation : str
        "softplus", "tanh", "swish" or "sigmoid". All are smooth, which estimators that use Newton's method need. Beyond
        the inputs seen in training, softplus continues along a straight line, and tanh levels off.
    initial : float
        Size of the outputs before training; small, so that a model with the network in it can be solved at the start.
    reduce : int, optional
        If given, a linear map reduces the inputs to this many numbers before the first layer. This is for embeddings of
        words or images, whose many dimensions repeat the same few things.

    Notes
    -----
    Inputs should be of order one. Use it through NumPyro's ``flax_module`` or :func:`hierax.nn.network`, above the
    subject plate; never register it inside a vector field, which runs at every stage of every step.

    Examples
    --------
    >>> import jax
    >>> net = hx.nn.MLP(outputs=1, width=6)
    >>> weights = net.init(jax.random.key(0), jnp.ones(2))
    >>> net.apply(weights, jnp.ones(2)).shape
    (1,)
    """

    outputs: int = 1
    width: int = 8
    depth: int = 1
    activation: str = "softplus"
    initial: float = 0.1
    reduce: int | None = None

    @linen.compact
    def __call__(self, x: Float[Array, "... input"]) -> Float[Array, "... output"]:
        """Return the outputs."""
        act = activation(self.activation)
        if self.reduce is not None:
            x = linen.Dense(self.reduce, use_bias=False, name="reduce")(x)
        for index in range(self.depth):
            x = act(linen.Dense(self.width, name=f"hidden_{index}")(x))
        near_zero = linen.initializers.variance_scaling(self.initial**2, "fan_in", "normal")
        return linen.Dense(self.outputs, kernel_init=near_zero, name="last")(x)
