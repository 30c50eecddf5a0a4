"""Penalties on weights, written as priors: ``priors={"net$params": hx.nn.l2(0.1)}`` in ``hx.fit``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from jaxtyping import Array

Prior = Callable[[str, tuple[int, ...]], "dist.Distribution | None"]


class GroupLaplace(dist.Distribution):
    """Density proportional to exp(−rate Σᵢ‖wᵢ‖), where wᵢ is row i of a matrix (the weights that leave one input)."""

    arg_constraints: ClassVar[dict[str, Any]] = {"rate": dist.constraints.positive}
    support: Any = dist.constraints.real_matrix

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

    For a :func:`hierax.flow`, leave out its hidden layers by ``without="inner"``: a penalty on them, beside that on the
    last layer, would only make their outputs small. With a strong penalty on the last layer the flow is Gaussian.

    Parameters
    ----------
    strength : float
    without : str, optional
        Layers whose names contain this text are not penalised.

    Returns
    -------
    callable
        A prior for ``priors=``: the function from path and shape of a tensor to its distribution, or to None.

    Examples
    --------
    >>> penalty = {'net$params': hx.nn.l2(0.1)}
    """
    return _prior("l2", strength, lambda shape: dist.Normal(jnp.zeros(shape), (2 * strength) ** -0.5), without)


def l1(strength: float) -> Prior:
    """Add ``strength``·Σ|w| to −log L: a Laplace prior. Biases are left alone.

    It is not smooth where a weight is zero, so that it suits VI, whose optimiser copes with this, rather than FOCE.

    Parameters
    ----------
    strength : float

    Returns
    -------
    callable
        A prior for ``priors=``: the function from path and shape of a tensor to its distribution, or to None.

    Examples
    --------
    >>> penalty = {'net$params': hx.nn.l1(0.1)}
    """
    return _prior("l1", strength, lambda shape: dist.Laplace(jnp.zeros(shape), 1 / strength))


def group(strength: float) -> Prior:
    """Add ``strength``·Σ‖wᵢ‖ to −log L, where wᵢ are all weights that leave input or unit i. Biases are left alone.

    The weights of an input or unit that is of no use shrink to zero together, so that inputs and units are selected.

    Parameters
    ----------
    strength : float

    Returns
    -------
    callable
        A prior for ``priors=``: the function from path and shape of a tensor to its distribution, or to None.

    Examples
    --------
    >>> penalty = {'net$params': hx.nn.group(0.1)}
    """
    return _prior("group", strength, lambda shape: GroupLaplace(strength, (shape[0], shape[1])))


def _prior(
    name: str, strength: float, of: Callable[[tuple[int, ...]], dist.Distribution], without: str | None = None
) -> Prior:
    if not strength > 0:
        raise ValueError(f"nn.{name}({strength}) must have a positive strength. Give one, or no prior at all.")

    def prior(path: str, shape: tuple[int, ...]) -> dist.Distribution | None:
        # Only matrices are penalised: a vector is a bias, or a constant of a head.
        here = without is None or without not in path
        return of(shape) if here and len(shape) == 2 else None

    return prior
