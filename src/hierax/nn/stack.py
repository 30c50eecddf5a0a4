"""A stack of flow layers as one flax module."""

from __future__ import annotations

from typing import Any

import flax.linen as linen
import jax.numpy as jnp
from jaxtyping import Array

from hierax.nn.layers import AutoregressiveLayer, CouplingLayer, LinearLayer, Mapped

KINDS = ("spline", "affine", "sinh", "coupling", "affine-coupling", "sinh-coupling")
MIXINGS = ("reverse", "linear", "none")


class Stack(linen.Module):
    """A stack of flow layers of one kind, every other one on the reversed coordinates; at first the identity.

    Parameters
    ----------
    size : int
        Number of coordinates.
    kind : {"spline", "affine", "sinh", "coupling", "affine-coupling", "sinh-coupling"}
        The map of each coordinate: a rational-quadratic spline ("spline" and "coupling"), an affine map, or an affine
        map after a sinh-arcsinh map, which makes a coordinate skewed and its tails heavy or light. Its parameters
        depend on the coordinates before it (autoregressive), or, in kinds with "coupling", on the other half of the
        coordinates.
    layers : int
        Number of layers.
    width, depth : int
        Units of a hidden layer, and number of hidden layers, of each layer's network.
    bins, bound : int, float
        Number of bins of a spline, and the interval [-bound, bound], outside which a spline is the identity but for
        shift and scale.
    mixing : {"reverse", "linear", "none"}
        What mixes the coordinates between layers: their reversal, a learned matrix as well, or nothing.

    Notes
    -----
    Papamakarios et al. (2021), J Mach Learn Res 22:57; splines: Durkan, Bekasov, Murray & Papamakarios (2019).

    Examples
    --------
    >>> import jax
    >>> stack = hx.nn.Stack(size=2)
    >>> stack.kind
    'sinh'
    """

    size: int
    kind: str = "sinh"
    layers: int = 2
    width: int = 16
    depth: int = 1
    bins: int = 5
    bound: float = 4.0
    mixing: str = "reverse"

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.mixing not in MIXINGS:
            raise ValueError(
                f"A flow of kind={self.kind!r} and mixing={self.mixing!r} is not known. Kinds are {list(KINDS)}, "
                f"mixings {list(MIXINGS)}."
            )
        if min(self.size, self.layers, self.width, self.depth) < 1 or self.bins < 2:
            raise ValueError("A flow needs size, layers, width and depth of 1 or more, and 2 bins or more.")
        super().__post_init__()

    def _layers(self) -> list[tuple[Any, bool]]:
        """Return the layers in order, and whether each acts on the coordinates in reverse."""
        family = CouplingLayer if "coupling" in self.kind else AutoregressiveLayer
        element = "spline" if self.kind == "coupling" else self.kind.removesuffix("-coupling")
        out: list[tuple[Any, bool]] = []
        for index in range(self.layers):
            layer = family(self.size, element, self.width, self.depth, self.bins, self.bound, name=f"layer_{index}")
            out.append((layer, self.mixing != "none" and index % 2 == 1))
            if self.mixing == "linear" and index < self.layers - 1:
                out.append((LinearLayer(self.size, name=f"linear_{index}"), False))
        return out

    @linen.compact
    def __call__(self, x: Array, context: Array | None = None, *, inverse: bool = False) -> Mapped:
        """Return the mapped points, (..., size), and log determinants, (...)."""
        total = jnp.zeros(x.shape[:-1])
        layers = self._layers()
        for layer, reverse in reversed(layers) if inverse else layers:
            x = x[..., ::-1] if reverse else x
            x, log_det = layer(x, context, inverse=inverse)
            x = x[..., ::-1] if reverse else x
            total = total + log_det
        return x, total
