"""Guides of random effects that depend on the population parameters.

If a guide q_i(φ_i) of random effects is the same for all values of the population parameters θ, the guide of θ becomes
far too narrow, because θ can then move only as far as no random effect has to follow it. How a subject's random effects
depend on θ is known but for the likelihood of its data: p(φ_i | y_i, θ) ∝ p(φ_i | θ)·p(y_i | φ_i, θ). Here, therefore,
a guide's member is a Gaussian in φ_i that stands in for the likelihood p(y_i | φ_i, θ). Random effects are drawn from
the product of this stand-in and the Gaussian with the mean and covariance of p(φ_i | θ), which is exact for every θ if
the data are linear in φ_i. Location and log SDs of the stand-in are linear in θ, because some parameters act on the
likelihood alone (a residual SD, a fixed effect without a random effect).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hierax.infer.blocks import Blocks, Vectors
from hierax.infer.vi.guide import Guide

# Smallest information of the data, in units of the prior's, that a stand-in starts from: without any information its
# location would be infinite.
_LEAST_INFORMATION = 0.05
# Parts of a guide's member that are replaced when it is multiplied with the prior.
_NEEDED = {"loc", "factor", "log_scale"}


class Linked(NamedTuple):
    """A guide's members at one value of θ, multiplied with the prior of the random effects.

    Attributes
    ----------
    frame : pytree
        The guide's members with location 0 and factor 1, so that only their shape (skewness, tails) is left.
    mean, root : arrays, (subject, coordinate[, coordinate])
        Mean and lower root of the covariance of p(φ | θ).
    loc, factor : arrays, (subject, coordinate[, coordinate])
        Mean of φ given data and θ, in units of ``root`` from ``mean``, and the lower factor of its precision.
    """

    frame: Any
    mean: Vectors
    root: Blocks
    loc: Vectors
    factor: Blocks


def stand_ins(mode: Vectors, hessian: Blocks, mean: Vectors, root: Blocks) -> tuple[Vectors, Blocks]:
    """Return location and root of the Gaussians whose product with the prior has these modes and Hessians."""
    lower = jnp.linalg.cholesky(jnp.einsum("nij,nkj->nik", root, root))
    whole = jnp.einsum("nji,njk,nkl->nil", lower, hessian, lower)
    values, vectors = jnp.linalg.eigh(whole - jnp.eye(whole.shape[-1]))
    values = jnp.maximum(values, _LEAST_INFORMATION)
    at = jax.scipy.linalg.solve_triangular(lower, (mode - mean)[..., None], lower=True)[..., 0]
    # K is the information of the data, and u the mode, both in prior SDs: the location m solves (1 + K) u = K m.
    m = jnp.einsum("nij,nj,nkj,nk->ni", vectors, (1 + values) / values, vectors, at)
    spread = jnp.einsum("nij,njk,nk->nik", lower, vectors, values**-0.5)
    return mean + jnp.einsum("nij,nj->ni", lower, m), spread


def begin(guide: Guide, own: Any, size: int, count: int) -> Any:
    """Return the first parameters: the guide's own, and slopes of 0 in ``count`` entries of θ."""
    rows = len(jax.tree.leaves(own)[0]) if guide.local else 1
    slope = jnp.zeros((rows, size, count))
    return {"own": own, "loc": slope, "log_scale": slope}


def linkable(guide: Guide, own: Any, pop: Any) -> bool:
    """Return whether a guide's members have a location and a factor, so that they can be multiplied with a prior."""
    member = jax.eval_shape(lambda own: guide.at(own, pop), own)
    return isinstance(member, dict) and member.keys() >= _NEEDED


def conditioned(member: Any, slopes: Any, standard: Float[Array, " entry"], mean: Vectors, root: Blocks) -> Linked:
    """Return the members at one θ, whose entries ``standard`` are in units of their guide's scales."""
    lower = jnp.linalg.cholesky(jnp.einsum("nij,nkj->nik", root, root))
    scale = jnp.exp(slopes["log_scale"] @ standard)
    white = member["factor"] * scale[..., None]
    away = (member["loc"] + slopes["loc"] @ standard - mean)[..., None]
    both = jax.scipy.linalg.solve_triangular(white, jnp.concatenate([lower, away], axis=-1), lower=True)
    data, right = both[..., :-1], both[..., -1]
    size = lower.shape[-1]
    factor = jnp.linalg.cholesky(jnp.eye(size) + jnp.einsum("nji,njk->nik", data, data))
    pulled = jnp.einsum("nji,nj->ni", data, right)[..., None]
    half = jax.scipy.linalg.solve_triangular(factor, pulled, lower=True)
    loc = jax.scipy.linalg.solve_triangular(factor, half, lower=True, trans=1)[..., 0]
    zero, unit = jnp.zeros_like(mean), jnp.broadcast_to(jnp.eye(size), lower.shape)
    frame = {**member, "loc": zero, "factor": unit, "log_scale": zero}
    return Linked(frame, mean, lower, loc, factor)


def sample(guide: Guide, member: Any, noise: Vectors) -> Vectors:
    """Return random effects from standard normal numbers."""
    if not isinstance(member, Linked):
        return guide.sample(member, noise)
    shape = guide.sample(member.frame, noise)[..., None]
    moved = jax.scipy.linalg.solve_triangular(member.factor, shape, lower=True, trans=1)[..., 0]
    return member.mean + jnp.einsum("nij,nj->ni", member.root, member.loc + moved)


def log_density(guide: Guide, member: Any, phi: Vectors) -> Float[Array, " subject"]:
    """Return the log density of random effects."""
    if not isinstance(member, Linked):
        return guide.log_density(member, phi)
    at = jax.scipy.linalg.solve_triangular(member.root, (phi - member.mean)[..., None], lower=True)[..., 0]
    shape = jnp.einsum("nji,nj->ni", member.factor, at - member.loc)
    volume = _log_det(member.factor) - _log_det(member.root)
    return guide.log_density(member.frame, shape) + volume


def moments(guide: Guide, member: Any, key: Any, size: tuple[int, int]) -> tuple[Vectors, Blocks]:
    """Return mean and covariance of each subject."""
    if not isinstance(member, Linked):
        return guide.moments(member, key, size)
    mean, covariance = guide.moments(member.frame, key, size)
    unit = jnp.broadcast_to(jnp.eye(size[1]), covariance.shape)
    outer = member.root @ jax.scipy.linalg.solve_triangular(member.factor, unit, lower=True, trans=1)
    centre = member.mean + jnp.einsum("nij,nj->ni", member.root, member.loc)
    moved = centre + jnp.einsum("nij,nj->ni", outer, mean)
    return moved, jnp.einsum("nij,njk,nlk->nil", outer, covariance, outer)


def _log_det(factor: Blocks) -> Float[Array, " subject"]:
    return jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)
