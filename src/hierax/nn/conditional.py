"""``hx.nn.conditional_normal``: a normal distribution of random effects whose mean and covariance are networks."""

from __future__ import annotations

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from hierax.nn.mlp import MLP
from hierax.nn.network import network


def conditional_normal(
    name: str,
    dim: int,
    context: Float[Array | np.ndarray, "*subject k"],
    *,
    covariance: Literal["full", "diagonal"] = "full",
    scale: float | Array = 1.0,
    module: Any = None,
) -> dist.MultivariateNormal:
    """Return N(μ(x), Σ(x)) with mean and covariance from one network of the context x, and register its weights.

    Call it inside or above the subject plate. Before any training the mean is about 0 and the SDs are about ``scale``,
    with hardly any correlation.

    Parameters
    ----------
    name : str
        Name of the network; the site of its weights is ``name$params``.
    dim : int
        Number of random effects.
    context : array, (subject, 1, k)
        Covariates or an embedding, roughly standardised.
    covariance : {"full", "diagonal"}
        Whether random effects may be correlated.
    scale : float or array, (dim,)
        SDs before any training.
    module : flax module, optional
        Network of inputs (..., k). Its outputs are ``dim`` means, ``dim`` log SDs and, for a full covariance,
        ``dim (dim − 1) / 2`` numbers below the diagonal of the covariance's factor, by row. By default an
        :class:`hierax.nn.MLP` of 16 units.

    Returns
    -------
    numpyro.distributions.MultivariateNormal
        Batch shape (subject, 1), event shape (dim,). If a normal distribution does not suffice, use a
        :func:`hierax.flow` with a context.

    Examples
    --------
    >>> effects = hx.nn.conditional_normal('eta', 2, pop.covariates['WT'][..., None])  # doctest: +SKIP
    """
    if covariance not in ("full", "diagonal"):
        raise ValueError(f"conditional_normal(covariance={covariance!r}) is not known. Use 'full' or 'diagonal'.")
    x = jnp.asarray(context, float)
    if x.ndim < 2:
        raise ValueError(
            f"conditional_normal('{name}', context=...) has shape {x.shape}, but the numbers known of a subject need "
            f"an axis of their own. Give (subject, 1, k): jnp.stack([covariate, ...], axis=-1)."
        )
    below = dim * (dim - 1) // 2 if covariance == "full" else 0
    wanted = 2 * dim + below
    out = network(name, module or MLP(outputs=wanted, width=16), input_shape=(x.shape[-1],))(x)
    if out.shape[-1] != wanted:
        raise ValueError(
            f"The network of conditional_normal('{name}', dim={dim}) has {out.shape[-1]} outputs, but {wanted} make "
            f"means, log SDs and a {covariance} covariance."
        )
    spread = jnp.asarray(scale, float) * jnp.exp(out[..., dim : 2 * dim])
    factor = jnp.broadcast_to(jnp.eye(dim), (*x.shape[:-1], dim, dim))
    if below:
        rows, columns = np.tril_indices(dim, -1)
        factor = factor.at[..., rows, columns].set(out[..., 2 * dim :])
    return dist.MultivariateNormal(out[..., :dim], scale_tril=spread[..., :, None] * factor)
