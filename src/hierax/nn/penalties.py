"""Penalties of weights, as the priors that they are: for ``priors={"net$params": hx.nn.l2(0.1)}`` of ``hx.fit``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from jaxtyping import Array

Prior = Callable[[str, tuple[int, ...]], "dist.Distribution | None"]


class GroupLaplace(dist.Distribution):
    """Density proportional to exp(−rate Σᵢ‖wᵢ‖), wᵢ the rows of a matrix (the weights that leave one input)."""

    arg_constraints: ClassVar[dict[str, Any]] = {"rate": dist.constraints.positive}
    support = dist.constraints.real_matrix

    def __init__(self, rate: float, shape: tuple[int, int]):
        self.rate = rate
        super().__init__(batch_shape=(), event_shape=shape)

    def log_prob(self, value: Array) -> Array:
        """Return the log density of a matrix."""
        rows, size = self.event_shape
        norms = jnp.sqrt(jnp.sum(value**2, axis=-1) + 1e-12)
        constant = gammaln(size / 2) - jnp.log(2.0) - size / 2 * jnp.log(jnp.pi) - gammaln(size)
        return -self.rate * jnp.sum(norms) + rows * (constant + size * jnp.log(self.rate))


def l2(strength: float, without: str | None = None) -> Prior:
    """Add ``strength``·Σw² to −log L: a normal prior with variance 1/(2·strength). Biases are left alone.

    ``without`` spares layers whose names contain it: "inner" those inside a :func:`hierax.flow`, which a penalty beside
    that of the last layer only starves. Where it is strong the flow is Gaussian.

    Parameters
    ----------
    strength : float
    without : str, optional
        Part of the names of layers that are spared.

    Returns
    -------
    callable
        A prior for ``priors=``: path and shape of a tensor to its log density.

    Examples
    --------
    >>> penalty = {'net$params': hx.nn.l2(0.1)}
    """
    return _prior("l2", strength, lambda shape: dist.Normal(jnp.zeros(shape), (2 * strength) ** -0.5), without)


def l1(strength: float) -> Prior:
    """Add ``strength``·Σ|w| to −log L: a Laplace prior. Biases are left alone.

    Not smooth where a weight is zero: for VI, whose optimiser does not mind, rather than for FOCE.

    Parameters
    ----------
    strength : float

    Returns
    -------
    callable
        A prior for ``priors=``: path and shape of a tensor to its log density.

    Examples
    --------
    >>> penalty = {'net$params': hx.nn.l1(0.1)}
    """
    return _prior("l1", strength, lambda shape: dist.Laplace(jnp.zeros(shape), 1 / strength))


def group(strength: float) -> Prior:
    """Add ``strength``·Σ‖wᵢ‖ to −log L, a group being all weights that leave one input or unit; not of biases.

    Groups that are of no use shrink to zero together: inputs and units are chosen.

    Parameters
    ----------
    strength : float

    Returns
    -------
    callable
        A prior for ``priors=``: path and shape of a tensor to its log density.

    Examples
    --------
    >>> penalty = {'net$params': hx.nn.group(0.1)}
    """
    return _prior("group", strength, lambda shape: GroupLaplace(strength, (shape[0], shape[1])))


def _prior(
    name: str, strength: float, of: Callable[[tuple[int, ...]], dist.Distribution], without: str | None = None
) -> Prior:
    if not strength > 0:
        raise ValueError(f"nn.{name}({strength}) is no penalty. Give a positive strength, or no prior at all.")

    def prior(path: str, shape: tuple[int, ...]) -> dist.Distribution | None:
        # Matrices alone: what is a vector is a bias, or a constant of a head.
        here = without is None or without not in path
        return of(shape) if here and len(shape) == 2 else None

    return prior
