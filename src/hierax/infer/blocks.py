"""Derivatives and linear algebra of many small per-subject blocks at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

Blocks = Float[Array, "subject coordinate coordinate"]
Vectors = Float[Array, "subject coordinate"]
PerSubject = Callable[[Vectors], Float[Array, " subject"]]

# Up to this many coordinates of a subject, derivatives are by forward mode. It compiles faster than reverse mode, and a
# select in it drops the NaN tangents of masked entries, which reverse mode would multiply by zero and keep. But its
# cost grows with the square of the number of coordinates, so that beyond this number reverse mode takes over.
FORWARD_UP_TO = 24


def tiled_basis(eta: Vectors) -> Float[Array, "coordinate subject coordinate"]:
    """Return the unit vectors e_k, each repeated for all subjects, so that one pass with it serves every block."""
    size = eta.shape[-1]
    return jnp.broadcast_to(jnp.eye(size, dtype=eta.dtype)[:, None, :], (size, *eta.shape))


def push_basis(function: Callable[[Vectors], Any], eta: Vectors) -> tuple[Any, Any]:
    """Return ``function(eta)`` and its tangents along every e_k, stacked in front."""
    if not eta.shape[-1]:
        value = function(eta)
        return value, jax.tree.map(lambda leaf: jnp.zeros((0, *leaf.shape)), value)
    return jax.vmap(lambda seed: jax.jvp(function, (eta,), (seed,)), out_axes=(None, 0))(tiled_basis(eta))


def value_and_gradient(function: PerSubject, eta: Vectors) -> tuple[Float[Array, " subject"], Vectors]:
    """Return f_i and its gradient in the subject's own coordinates."""
    if eta.shape[-1] <= FORWARD_UP_TO:
        value, tangents = push_basis(function, eta)
        return value, tangents.T
    value, pull = jax.vjp(function, eta)
    return value, pull(jnp.ones_like(value))[0]


def value_gradient_hessian(function: PerSubject, eta: Vectors) -> tuple[Float[Array, " subject"], Vectors, Blocks]:
    """Return f_i, its gradient and its Hessian block, for every subject."""
    (value, gradient), (_, columns) = push_basis(lambda e: value_and_gradient(function, e), eta)
    return value, gradient, jnp.moveaxis(columns, 0, -1)


def cholesky(blocks: Blocks) -> tuple[Blocks, Bool[Array, " subject"]]:
    """Return lower factors, and which blocks are positive definite; the others get the identity."""
    if not blocks.shape[-1]:
        return blocks, jnp.ones(blocks.shape[0], bool)
    factor = jnp.linalg.cholesky(blocks, symmetrize_input=False)
    good = jnp.all(jnp.isfinite(jnp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)
    return jnp.where(good[:, None, None], factor, jnp.eye(blocks.shape[-1])), good


def solve_factored(factor: Blocks, vectors: Vectors) -> Vectors:
    """Solve ``L Lᵀ x = v`` by subject."""
    if not vectors.shape[-1]:
        return vectors
    lower = jax.scipy.linalg.solve_triangular(factor, vectors[..., None], lower=True)
    return jax.scipy.linalg.solve_triangular(factor, lower, lower=True, trans=1)[..., 0]


def inverse_factored(factor: Blocks) -> Blocks:
    """Return ``(L Lᵀ)⁻¹`` by subject."""
    if not factor.shape[-1]:
        return factor
    eye = jnp.broadcast_to(jnp.eye(factor.shape[-1]), factor.shape)
    lower = jax.scipy.linalg.solve_triangular(factor, eye, lower=True)
    return jnp.einsum("nki,nkj->nij", lower, lower)


@jax.custom_jvp
def log_det(blocks: Blocks) -> Float[Array, " subject"]:
    """Return log|H_i| of positive-definite blocks; NaN where a block is not."""
    factor, good = cholesky(blocks)
    return jnp.where(good, 2 * jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1), jnp.nan)


@log_det.defjvp
def _log_det_jvp(primals: tuple[Blocks], tangents: tuple[Blocks]) -> tuple[Array, Array]:
    (blocks,), (tangent,) = primals, tangents
    inverse = spd_inverse(blocks)
    return log_det(blocks), jnp.einsum("nij,nij->n", inverse, tangent)


@jax.custom_jvp
def spd_inverse(blocks: Blocks) -> Blocks:
    """Return H_i⁻¹ of positive-definite blocks; the identity where a block is not."""
    return inverse_factored(cholesky(blocks)[0])


@spd_inverse.defjvp
def _spd_inverse_jvp(primals: tuple[Blocks], tangents: tuple[Blocks]) -> tuple[Array, Array]:
    (blocks,), (tangent,) = primals, tangents
    inverse = spd_inverse(blocks)
    return inverse, -jnp.einsum("nij,njk,nkl->nil", inverse, tangent, inverse)


def inverse_blocks(blocks: np.ndarray) -> np.ndarray:
    """Return the inverses of symmetric blocks, 0 in directions that are not positive definite."""
    # Numbers that are not finite count as 0, so that a block of NaN gets the inverse 0, as where it is not positive
    # definite.
    values, vectors = np.linalg.eigh(np.where(np.isfinite(blocks), blocks, 0.0))
    inverse = np.where(values > 0, 1.0 / np.where(values > 0, values, 1.0), 0.0)
    return np.einsum("nij,nj,nkj->nik", vectors, inverse, vectors)


def draw_moments(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance by subject of draws (chain, draw, subject, coordinate)."""
    flat = draws.reshape(-1, *draws.shape[2:])
    mean = flat.mean(0)
    centred = flat - mean
    return mean, np.einsum("mni,mnj->nij", centred, centred) / max(len(flat) - 1, 1)
