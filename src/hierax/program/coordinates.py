"""The coordinates in which estimators move a random effect."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import constraints
from numpyro.distributions.transforms import (
    AffineTransform,
    ExpTransform,
    IndependentTransform,
    LowerCholeskyAffine,
    biject_to,
)

from hierax.errors import ModelError
from hierax.nn.transform import NeuralTransform
from hierax.privately import mask_of

_REAL = (constraints.real, constraints.real_vector)
_MIXTURES = (dist.MixtureSameFamily, dist.MixtureGeneral)
# Transforms that change the shape of a distribution no more than a logarithm does; others make an effect a flow.
_PLAIN = (AffineTransform, ExpTransform, LowerCholeskyAffine)


@dataclasses.dataclass(frozen=True)
class Coordinate:
    """A random effect in the unconstrained coordinates in which estimators vary it.

    Attributes
    ----------
    shape : tuple of int
        Shape of the coordinate: batch shape of the site, then the event shape of the working space.
    event_dim : int
        How many trailing axes of ``shape`` are event axes.
    forward : callable
        Coordinate → value of the site.
    inverse : callable
        Value of the site → coordinate, and log |d value/d coordinate| of the site's batch shape; valid for
        flows only.
    log_prob : callable
        Log density of the coordinate, of the site's batch shape.
    location, scale : callable
        The reference point ("η = 0") and the prior SD in this coordinate, both of ``shape``.
    root : callable
        Standard normal numbers of ``shape`` → deviations from ``location``: of the distribution itself where it is
        Gaussian, else independent ones with the SDs ``scale``.
    mask : bool array of the site's batch shape, or None
        Where False, the program masks the effect out.
    label : str
        The coordinate in words.
    gaussian : bool
        Whether the distribution of the coordinate is Gaussian.
    flow : bool
        Whether the value is made from the coordinate by a transform that is neither affine nor exponential.
    warped : bool
        Whether the value is made by a flow, or the distribution of the coordinate is a mixture.
    """

    shape: tuple[int, ...]
    event_dim: int
    forward: Callable[[Array], Array]
    inverse: Callable[[Array], tuple[Array, Array]]
    log_prob: Callable[[Array], Array]
    location: Callable[[], Array]
    scale: Callable[[], Array]
    root: Callable[[Array], Array]
    mask: Any
    label: str
    gaussian: bool
    flow: bool
    warped: bool


def working_coordinate(name: str, fn: dist.Distribution) -> Coordinate:
    """Return the working coordinate of a random-effect site.

    An effect with real support is its own coordinate; a transformed distribution (log-normal, flow) has its coordinate
    in its base space, and any other continuous distribution in the unconstrained space of its support.

    Raises
    ------
    ModelError
        A discrete distribution.
    """
    if fn.is_discrete:
        raise ModelError(
            f"Random effect '{name}' is discrete ({type(fn).__name__}), and marginal estimators integrate over "
            f"continuous effects. Write the mixture with MixtureSameFamily, which sums over the classes."
        )
    mask, base, transforms = unfold(fn)
    shape = tuple(fn.batch_shape) + tuple(base.event_shape)
    if _is_real(base.support):
        bijector, label = None, "identity" if not transforms else "base space"
    else:
        bijector, label = biject_to(base.support), "unconstrained"

    def forward(z: Array) -> Array:
        value = z if bijector is None else bijector(z)
        for transform in transforms:
            value = transform(value)
        return value

    def inverse(value: Array) -> tuple[Array, Array]:
        total = jnp.zeros(fn.batch_shape)
        for transform in reversed(transforms):
            before, log_det = _inverted(transform, value)
            total = total + log_det.sum(tuple(range(len(fn.batch_shape) - jnp.ndim(log_det), 0)))
            value = before
        return value, total

    def log_prob(z: Array) -> Array:
        value = z if bijector is None else bijector(z)
        density = base.log_prob(value)
        if bijector is not None:
            log_det = bijector.log_abs_det_jacobian(z, value)
            density = density + log_det.sum(tuple(range(jnp.ndim(density) - jnp.ndim(log_det), 0)))
        return jnp.broadcast_to(density, fn.batch_shape)

    flow = bijector is None and not all(map(_plain, transforms))

    def place(value: Any) -> Array:
        return jnp.broadcast_to(jnp.asarray(value, float), shape)

    return Coordinate(
        shape=shape,
        event_dim=len(base.event_shape),
        forward=forward,
        inverse=inverse,
        log_prob=log_prob,
        location=lambda: place(_location(base, bijector)),
        scale=lambda: place(_scale(base, bijector)),
        root=lambda z: _root(base, bijector, z),
        mask=mask,
        label=label,
        gaussian=bijector is None and isinstance(innermost(base), dist.Normal | dist.MultivariateNormal),
        flow=flow,
        warped=flow or isinstance(innermost(base), _MIXTURES),
    )


def median(fn: dist.Distribution) -> Array:
    """Return the median of a prior, or the median of fixed draws where it has no quantile function."""
    try:
        value = fn.icdf(0.5)
    except (NotImplementedError, AttributeError, TypeError, ImportError):
        value = jnp.median(fn.sample(jax.random.key(0), (1001,)), axis=0)
    return jnp.broadcast_to(value, fn.shape())


def unfold(fn: dist.Distribution) -> tuple[Any, dist.Distribution, list[Any]]:
    """Return a random effect's mask, its base distribution, and the transforms from the base to the effect."""
    mask, inner = _strip(fn)
    return mask, *_unfold(inner)


def _strip(fn: dist.Distribution) -> tuple[Any, dist.Distribution]:
    """Return the mask of a distribution, and the distribution without masks and without its expansion by plates."""
    mask = None
    while isinstance(fn, dist.MaskedDistribution | dist.ExpandedDistribution):
        if isinstance(fn, dist.MaskedDistribution):
            mask = mask_of(fn) if mask is None else mask & mask_of(fn)
        fn = fn.base_dist
    return mask, fn


def _unfold(fn: dist.Distribution) -> tuple[dist.Distribution, list[Any]]:
    """Return the base distribution and the transforms that lead from it to the effect."""
    if isinstance(fn, dist.Independent):
        base, transforms = _unfold(fn.base_dist)
        return (base.to_event(fn.reinterpreted_batch_ndims), transforms) if transforms else (fn, [])
    if isinstance(fn, dist.TransformedDistribution):
        base, before = _unfold(fn.base_dist)
        return base, [*before, *fn.transforms]
    if isinstance(fn, dist.ExpandedDistribution):
        base, transforms = _unfold(fn.base_dist)
        return (base.expand(fn.batch_shape), transforms) if transforms else (fn, [])
    return fn, []


def innermost(fn: dist.Distribution) -> dist.Distribution:
    """Return the distribution under all wrappers."""
    while isinstance(fn, dist.Independent | dist.ExpandedDistribution | dist.MaskedDistribution):
        fn = fn.base_dist
    return fn


def _inverted(transform: Any, value: Array) -> tuple[Array, Array]:
    """Return the point that is mapped to ``value``, and log |d value/d point|."""
    if isinstance(transform, NeuralTransform):
        before, log_det = transform.inverse_with_log_det(value)
        return before, -log_det
    before = transform.inv(value)
    return before, transform.log_abs_det_jacobian(before, value)


def _plain(transform: Any) -> bool:
    """Return whether a transform changes the shape of a distribution no more than a logarithm does."""
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    return isinstance(transform, _PLAIN)


def _is_real(support: Any) -> bool:
    if isinstance(support, constraints.independent):
        return _is_real(support.base_constraint)
    return any(support is real for real in _REAL)


def _location(base: dist.Distribution, bijector: Any) -> Array:
    core: Any = innermost(base)
    if bijector is None and hasattr(core, "loc"):
        return core.loc
    value = median(base)
    return value if bijector is None else bijector.inv(value)


def _root(base: dist.Distribution, bijector: Any, z: Array) -> Array:
    core: Any = innermost(base)
    if bijector is None and isinstance(core, dist.MultivariateNormal):
        return jnp.einsum("...ij,...j->...i", core.scale_tril, z)
    return _scale(base, bijector) * z


def _scale(base: dist.Distribution, bijector: Any) -> Array:
    core: Any = innermost(base)
    kind = type(core) if bijector is None else None
    if kind is dist.Normal:
        return core.scale
    if kind is dist.MultivariateNormal:
        return jnp.sqrt(jnp.sum(core.scale_tril**2, axis=-1))
    draws = base.sample(jax.random.key(0), (4000,))
    return jnp.std(draws if bijector is None else bijector.inv(draws), axis=0)
