"""``hx.flow``: a learned distribution of random effects."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.contrib.module import flax_module

from hierax.nn.stack import Stack
from hierax.nn.transform import NeuralTransform


def flow(
    name: str,
    dim: int,
    context: Array | None = None,
    *,
    scale: float | Array = 1.0,
    kind: str = "sinh",
    layers: int = 2,
    width: int = 16,
    depth: int = 1,
    bins: int = 5,
    bound: float = 4.0,
    mixing: str = "reverse",
    module: Any = None,
) -> dist.Distribution:
    """Return a distribution over R^dim that is learned with the model, and register its weights.

    Without a context, call it above the subject plate; with one, wherever the context is known. Before any training
    the distribution is normal with mean 0 and SDs ``scale``.

    Parameters
    ----------
    name : str
        Name of the flow; the site of its weights is ``name$params``.
    dim : int
        Number of random effects.
    context : array, (subject, 1, k), optional
        What the distribution is conditional on: covariates, an embedding; roughly standardised.
    scale : float or array, (dim,)
        SDs before any training. Values near the expected SDs are a good start.
    kind, layers, width, depth, bins, bound, mixing
        As for :class:`hierax.nn.Stack`. Two "sinh" layers are cheap, and four can make a distribution with two modes.
        Splines take about five times as long, and need a penalty more than the other kinds do.
    module : flax module, optional
        A map of your own, called as :class:`hierax.nn.Stack` is.

    Returns
    -------
    numpyro Distribution
        Event shape (dim,), batch shape that of the context.

    Notes
    -----
    Estimators work in the flow's base space: there the prior is standard normal, whatever the flow is. FOCE and
    Laplace approximate each subject's posterior there by a normal distribution, which is poor where the posterior has
    two modes: compare with ``hx.log_likelihood(fit, hx.ImportanceSampling())``.

    Examples
    --------
    >>> def skewed(pop):
    ...     rate = numpyro.param('rate', 0.5, constraint=dist.constraints.positive)
    ...     with numpyro.plate('subject', pop.n_subjects, dim=-2):
    ...         eta = numpyro.sample('eta', hx.flow('flow', 1, scale=0.3))
    ...         mean = 10 * jnp.exp(-rate * jnp.exp(eta[..., 0]) * pop.times)
    ...         hx.observe('dv', dist.Normal(mean, 0.5), pop)
    >>> hx.check(skewed, pop, show=False).loc['eta', 'class']
    'random effect'
    """
    if dim < 1:
        raise ValueError(f"flow('{name}', dim={dim}) needs a dim of 1 or more, the number of random effects.")
    batch: tuple[int, ...] = ()
    if context is not None:
        context = jnp.asarray(context, float)
        if context.ndim < 1:
            raise ValueError(
                f"flow('{name}', context=...) got a number, but the numbers known of a subject need an axis of their "
                f"own. Give (subject, 1, k): jnp.stack([covariate, ...], axis=-1)."
            )
        batch = context.shape[:-1]
    network = module or Stack(dim, kind, layers, width, depth, bins, bound, mixing)
    apply = flax_module(name, network, *_dummies(dim, context))
    transform = NeuralTransform(network, apply.args[0], context)
    base = dist.Normal(jnp.zeros(dim), 1.0).to_event(1).expand(batch)
    size = jnp.broadcast_to(jnp.asarray(scale, float), (dim,))
    wide = dist.transforms.IndependentTransform(dist.transforms.AffineTransform(0.0, size), 1)
    return dist.TransformedDistribution(base, [transform, wide])


def _dummies(dim: int, context: Array | None) -> tuple[Array, ...]:
    x = jnp.zeros((1, dim))
    return (x,) if context is None else (x, jnp.zeros((1, context.shape[-1])))
