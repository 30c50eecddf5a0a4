"""Importance sampling of each subject's random effects."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hierax.data.population import Population
from hierax.data.sanitise import sanitise
from hierax.infer.blocks import Blocks, Vectors
from hierax.options import Options
from hierax.program.density import Program
from hierax.program.read import cached

# Samples are drawn in batches of at most this many numbers (samples × subjects × records), which bounds memory.
_CHUNK = 2_000_000


@dataclasses.dataclass(frozen=True)
class ImportanceSampling(Options):
    """Importance sampling of each subject's random effects.

    Parameters
    ----------
    n : int
        Samples for each subject.
    proposal : {"gaussian", "t"}
        Shape of the proposal; a t distribution has heavier tails than any posterior with Gaussian tails.
    df : float
        Degrees of freedom of the t distribution.
    scale : float
        SDs of the proposal, as a multiple of the posterior's: somewhat above 1, so that it covers the tails.
    centre : {"mode", "mean"}
        At the mode with the inverse Hessian as the covariance, or at the conditional mean with the conditional
        covariance, which Markov chains estimate first.

    Examples
    --------
    >>> hx.ImportanceSampling(1_000, proposal='t').label
    'importance sampling, 1000 samples, t(4) at the mode'
    """

    n: int = 10_000
    proposal: Literal["gaussian", "t"] = "gaussian"
    df: float = 4.0
    scale: float = 1.2
    centre: Literal["mode", "mean"] = "mode"

    def __post_init__(self) -> None:
        if self.n < 2:
            raise ValueError(
                f"ImportanceSampling(n={self.n}) must be 2 or more, because one sample has no Monte-Carlo error. Use "
                f"1 000 or more."
            )
        if not self.scale > 0:
            raise ValueError(
                f"ImportanceSampling(scale={self.scale}) must be above 0, because it multiplies SDs. Use 1 to 1.5."
            )
        if self.proposal == "t" and not self.df > 0:
            raise ValueError(
                f"ImportanceSampling(df={self.df}) must be above 0, because it is the degrees of freedom of a t "
                f"distribution. Use 4, say."
            )

    @property
    def label(self) -> str:
        """The method in words."""
        shape = "Gaussian" if self.proposal == "gaussian" else f"t({self.df:g})"
        return f"importance sampling, {self.n} samples, {shape} at the {self.centre}"


def importance_sample(
    program: Program,
    pop: Population,
    params: Any,
    centre: Any,
    covariance: Any,
    method: ImportanceSampling,
    seed: int,
) -> Float[np.ndarray, "subject sample"]:
    """Return the log weights of samples around ``centre``; the log of the mean weight estimates log p(y_i)."""
    width = pop.n_subjects * pop.n_records
    batch = int(np.clip(_CHUNK // max(width, 1), 1, method.n))
    steps = -(-method.n // batch)
    function = cached(
        program,
        ("importance", method.proposal, batch, steps),
        lambda: jax.jit(_weights(program, method.proposal, batch, steps)),
    )
    key = jax.random.key_data(jax.random.key(seed))
    logs = np.asarray(
        function(
            pop, params, jnp.asarray(centre), jnp.asarray(method.scale**2 * covariance), jnp.asarray(method.df), key
        )
    )
    return logs[: method.n].T


def _weights(program: Program, proposal: str, batch: int, steps: int) -> Any:
    """Return the function that draws samples of all subjects and returns their log weights, (sample, subject)."""

    def weights(pop: Population, params: Any, centre: Vectors, covariance: Blocks, df: Array, key_data: Array) -> Array:
        clean = sanitise(pop)
        factor = proposal_factor(covariance)
        log_det = jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)

        def one(key: Any) -> Array:
            """Return log p(y, η) − log q(η) of one sample of each subject; 0 for padded subjects."""
            normal_key, gamma_key = jax.random.split(key)
            z = jax.random.normal(normal_key, centre.shape)
            if proposal == "t":
                # One chi-square variable scales a subject's whole vector: one for each coordinate would be another
                # distribution than that of ``log_t``.
                chi = jax.random.chisquare(gamma_key, df, (len(centre),))
                z = z * jnp.sqrt(df / chi)[:, None]
                log_q = log_t(z, df)
            else:
                log_q = log_normal(z)
            eta = centre + jnp.einsum("nij,nj->ni", factor, z)
            log_p = program.log_joint(clean, params, eta)
            # log q(η) = log q(z) − log det(factor), because η = centre + factor · z.
            out = log_p - log_q + log_det
            # A sample at which the model gives NaN counts as impossible: its weight is 0.
            out = jnp.where(jnp.isnan(out), -jnp.inf, out)
            return jnp.where(jnp.asarray(pop.subject_mask), out, 0.0)

        keys = jax.random.split(jax.random.wrap_key_data(key_data), steps * batch).reshape(steps, batch)
        return jax.lax.map(lambda group: jax.vmap(one)(group), keys).reshape(steps * batch, -1)

    return weights


def log_normal(z: Array) -> Array:
    """Return the log density of standard normal vectors."""
    return -0.5 * jnp.sum(z**2, -1) - 0.5 * z.shape[-1] * np.log(2 * np.pi)


def log_t(z: Array, df: Any) -> Array:
    """Return the log density of standard multivariate t vectors with ``df`` degrees of freedom."""
    size, half = z.shape[-1], 0.5 * (df + z.shape[-1])
    constant = jax.scipy.special.gammaln(half) - jax.scipy.special.gammaln(0.5 * df)
    return constant - 0.5 * size * jnp.log(df * np.pi) - half * jnp.log1p(jnp.sum(z**2, -1) / df)


def proposal_factor(covariance: Blocks) -> Blocks:
    """Return Cholesky factors of the proposals' covariances; the identity where one is not positive definite."""
    factor = jnp.linalg.cholesky(covariance)
    good = jnp.isfinite(factor).all((-1, -2))
    return jnp.where(good[:, None, None], factor, jnp.eye(covariance.shape[-1]))


__all__ = ["ImportanceSampling", "importance_sample", "log_normal", "log_t", "proposal_factor"]
