"""Quasi-random importance-sampling EM, whose points fill the space of the random effects evenly (QRPEM)."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, PRNGKeyArray

from hierax.arguments import positive
from hierax.infer.marginal.importance import log_t, proposal_factor
from hierax.infer.method import Commands, Maturity
from hierax.infer.saem.importance_em import Drawn, ImportanceEM, Sampling, drawn_from
from hierax.infer.saem.iteration import Iteration
from hierax.infer.saem.state import State

# A subject whose effective samples are fewer than this many times its random effects keeps the covariance of its
# proposal, because a covariance of so few samples is too rough to sample from.
_EFFECTIVE_PER_COORDINATE = 5.0
# Probabilities are kept this far away from 0 and 1, where normal quantiles are infinite.
_INSIDE = 1e-12


@dataclasses.dataclass(frozen=True)
class QRPEM(ImportanceEM):
    """EM whose expectations are sums over quasi-random points around each subject's conditional mean.

    The points are Sobol's sequence, shifted at random in every direction for every subject and iteration: they cover
    the proposal more evenly than random points do, and the error of their sums falls faster. The proposal is a
    multivariate t at the conditional mean, with the conditional covariance, that the previous iteration has found; the
    first proposal lies at the mode. No mode is sought after that, so that an iteration is cheaper than one of
    :class:`ImportanceEM`.

    Parameters
    ----------
    samples : int
        Points per subject and iteration: a power of 2, for which Sobol's sequence is balanced.
    scale : float
        Scale of the proposal, as a multiple of the conditional SDs.
    df : float
        Degrees of freedom of the t distribution.
    exploratory, smoothing, automatic, annealing, optimiser, updates, objective
        As for :class:`ImportanceEM`.

    References
    ----------
    Jank (2005), Comput Stat Data Anal 48:685; Leary & Dunlavey, QRPEM (Phoenix NLME).

    Examples
    --------
    >>> import hierax as hx
    >>> hx.QRPEM(samples=512).label
    'quasi-random EM (512 Sobol points, t(5) at the conditional mean)'
    """

    samples: int = 256
    scale: float = 1.0
    df: float = 5.0
    maturity: ClassVar[Maturity] = "experimental"
    commands: ClassVar[Commands] = {"qrpem": {}}
    references: ClassVar[tuple[str, ...]] = ("jank2005",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples & (self.samples - 1):
            raise ValueError(
                f"QRPEM(samples={self.samples}) must be a power of 2, because Sobol's points are balanced only in "
                f"such numbers. Use 256 or 512."
            )
        positive("df", self.df)

    @property
    def label(self) -> str:
        """Name of the algorithm."""
        return f"quasi-random EM ({self.samples} Sobol points, t({self.df:g}) at the conditional mean)"

    @property
    def citation(self) -> str:
        """Where it is described."""
        return "Jank (2005), Comput Stat Data Anal 48:685; Leary & Dunlavey, QRPEM (Phoenix NLME)"

    @property
    def iteration(self) -> type[Iteration]:
        """What one iteration does."""
        return _QuasiSampling


class _QuasiSampling(Sampling):
    """One iteration: quasi-random points around each subject's conditional mean, weighted; maximise."""

    saem: QRPEM

    def propose(self, state: State, params: Any, key: PRNGKeyArray) -> Drawn:
        """Return samples of all subjects, and the density, centre and root of their proposal."""

        def at_modes() -> tuple[Array, Array]:
            anchor = self.saem.objective.anchor(self.program, self.pop, params, state.centre)
            return anchor.eta, jnp.linalg.inv(anchor.hessian)

        def at_means() -> tuple[Array, Array]:
            return state.centre, state.square - state.centre[:, :, None] * state.centre[:, None, :]

        begun = jnp.any(state.square != 0)
        centre, covariance = jax.lax.cond(begun, at_means, at_modes)
        factor = proposal_factor(covariance * self.saem.scale**2)
        z = self._points(key, *state.chains.eta.shape[1:])
        return drawn_from(centre, factor, z, log_t(z, self.saem.df))

    def remember(self, state: State, drawn: Drawn, weights: Array, effective: Array) -> State:
        """Return the state with each subject's conditional mean and covariance."""
        eta, samples = state.chains.eta, self.saem.samples
        mean = jnp.einsum("cn,cni->ni", weights, eta)
        away = eta - mean
        covariance = jnp.einsum("cn,cni,cnj->nij", weights, away, away)
        before = jnp.einsum("nij,nkj->nik", drawn.factor, drawn.factor) / self.saem.scale**2
        enough = effective * samples > _EFFECTIVE_PER_COORDINATE * eta.shape[-1]
        covariance = jnp.where(enough[:, None, None], covariance, before)
        return state._replace(centre=mean, square=covariance + mean[:, :, None] * mean[:, None, :])

    def _points(self, key: PRNGKeyArray, subjects: int, size: int) -> Array:
        """Return standard t vectors, (sample, subject, coordinate)."""
        uniform, chi = _sobol(self.saem.samples, size, self.saem.df)
        shift = jax.random.uniform(key, (subjects, size))
        shifted = jnp.clip((uniform[:, None, :] + shift) % 1.0, _INSIDE, 1 - _INSIDE)
        return jax.scipy.special.ndtri(shifted) * jnp.sqrt(self.saem.df / chi)[:, None, None]


@functools.lru_cache(8)
def _sobol(samples: int, size: int, df: float) -> tuple[np.ndarray, np.ndarray]:
    """Return Sobol's points, (sample, coordinate), and chi-square quantiles at the points' extra coordinate."""
    from scipy.stats import qmc

    points = qmc.Sobol(size + 1, scramble=False).random(samples)
    return points[:, :size], 2 * scipy.special.gammaincinv(0.5 * df, points[:, size] + 0.5 / samples)
