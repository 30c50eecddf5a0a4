"""Importance-sampling EM at the modes (NONMEM's IMPMAP)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from hierax.data.population import Population
from hierax.infer.importance import log_normal, proposal_factor
from hierax.infer.kernels import Landscape
from hierax.infer.saem import SAEM, Iteration
from hierax.infer.saem_state import Schedule, State, Trace


@dataclasses.dataclass(frozen=True)
class ImportanceEM(SAEM):
    """EM whose expectations are importance samples around each subject's mode, found anew at every iteration.

    The parameters are maximised as by :class:`SAEM`. The history's ``complete`` is the log likelihood by importance
    sampling, before each step: unlike SAEM's, a likelihood.

    Parameters
    ----------
    samples : int
        Samples a subject and iteration.
    scale : float
        SDs of the proposal, as a multiple of those at the mode.
    exploratory, smoothing : int
        Iterations with full steps, and with smaller and smaller ones.
    automatic, annealing, optimiser, updates, objective
        As for :class:`SAEM`.
    """

    samples: int = 300
    scale: float = 1.2
    exploratory: int = 60
    smoothing: int = 40
    burn_in: int = 0
    annealing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 2 or not self.scale > 0:
            raise ValueError(
                f"ImportanceEM(samples={self.samples}, scale={self.scale}) samples nothing. Use 300 samples or more, "
                f"and a scale of 1 to 1.5."
            )

    @property
    def label(self) -> str:
        """Name of the algorithm."""
        return f"importance-sampling EM ({self.samples} samples at the mode)"

    @property
    def citation(self) -> str:
        """Where it is described."""
        return "Bauer, Guzy & Ng (2007), AAPS J 9:E60"

    @property
    def iteration(self) -> type[Iteration]:
        """What one iteration does."""
        return _Sampling

    def chains_for(self, pop: Population) -> int:
        """Return the number of samples a subject."""
        return self.samples


class _Sampling(Iteration):
    """One iteration: find the modes, sample around them, weight, maximise."""

    saem: ImportanceEM

    def __call__(self, state: State, now: Schedule) -> tuple[State, Trace]:
        key, here = jax.random.split(jax.random.wrap_key_data(state.key))
        state = state._replace(key=jax.random.key_data(key))
        params, program, pop = self.params_of(state.flat), self.program, self.pop
        anchor = self.saem.objective.anchor(program, pop, params, state.centre)
        covariance = jnp.linalg.inv(anchor.hessian) * self.saem.scale**2
        factor = proposal_factor(covariance)
        z = jax.random.normal(here, state.chains.eta.shape)
        eta = anchor.eta + jnp.einsum("nij,cnj->cni", factor, z)
        logs = jax.vmap(lambda e: program.log_joint(pop, params, e))(eta) - log_normal(z)
        logs = logs + jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)
        # A sample without a density has no weight; subjects all of whose samples are such end the fit (`verdict`).
        logs = jnp.where(self.real, jnp.where(jnp.isfinite(logs), logs, -jnp.inf), 0.0)
        weights = jax.nn.softmax(logs, axis=0)
        total = jnp.sum(jax.scipy.special.logsumexp(logs, axis=0) - jnp.log(float(len(logs))), where=self.real)
        effective = 1.0 / jnp.sum(weights**2, axis=0) / len(logs)
        root = program.prior_root(pop, params, anchor.eta)
        land = Landscape(program.reference(pop, params), root, factor)
        state = state._replace(chains=state.chains._replace(eta=eta, log_density=logs))
        state = self.maximise(state, land, weights, now)
        shares = jnp.zeros(4).at[0].set(jnp.mean(effective, where=self.real))
        return state, Trace(state.flat, total, shares)
