"""``NeuralTransform``: a NumPyro transform of R^d built from flax networks."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform


class NeuralTransform(Transform):
    """A bijection of R^d whose map, inverse and log determinant come from a network; as differentiable as that is.

    Parameters
    ----------
    module : flax module
        A :class:`hierax.nn.Stack`, or a module of your own. Called as ``module(x, context, inverse=False)``, it returns
        mapped points (..., d) and the log determinants (...) of the map that it applied, forward or inverse.
    weights : pytree
        The module's parameters.
    context : array, (..., k), optional
        What the map is conditional on; it has the same batch axes as the points.

    Examples
    --------
    >>> transform = hx.NeuralTransform(hx.nn.Stack(size=2), weights)  # doctest: +SKIP
    """

    domain: Any = constraints.real_vector
    codomain: Any = constraints.real_vector

    def __init__(self, module: Any, weights: Any, context: Array | None = None):
        self.module, self.weights, self.context = module, weights, context

    def _run(self, x: Array, inverse: bool) -> tuple[Array, Array]:
        context = self.context
        if context is not None:
            batch = jnp.broadcast_shapes(x.shape[:-1], context.shape[:-1])
            x = jnp.broadcast_to(x, (*batch, x.shape[-1]))
            context = jnp.broadcast_to(context, (*batch, context.shape[-1]))
        return self.module.apply({"params": self.weights}, x, context, inverse=inverse)

    def __call__(self, x: Array) -> Array:
        """Return the mapped points."""
        return self._run(x, inverse=False)[0]

    def _inverse(self, y: Array) -> Array:
        return self._run(y, inverse=True)[0]

    def inverse_with_log_det(self, y: Array) -> tuple[Array, Array]:
        """Return the points that are mapped to ``y``, and log |det dx/dy|, of the batch shape: one run for both."""
        return self._run(y, inverse=True)

    def call_with_intermediates(self, x: Array) -> tuple[Array, Array]:
        """Return the mapped points, and their log determinants for :meth:`log_abs_det_jacobian`."""
        return self._run(x, inverse=False)

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: Array | None = None) -> Array:
        """Return log |det dy/dx|, of the batch shape."""
        return self._run(x, inverse=False)[1] if intermediates is None else intermediates

    def tree_flatten(self) -> tuple[Any, Any]:
        """Return weights and context as leaves, for JAX."""
        return (self.weights, self.context), (("weights", "context"), {"module": self.module})

    def __eq__(self, other: object) -> bool:
        """Return whether module, weights and context are the same objects."""
        return (
            isinstance(other, NeuralTransform)
            and self.module == other.module
            and self.weights is other.weights
            and self.context is other.context
        )

    __hash__ = None  # type: ignore[assignment]
