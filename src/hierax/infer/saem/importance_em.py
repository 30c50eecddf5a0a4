"""Importance-sampling EM at the modes (NONMEM's IMPMAP)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from hierax.arguments import positive, whole
from hierax.data.population import Population
from hierax.infer.blocks import Blocks, Vectors
from hierax.infer.marginal.importance import log_normal, proposal_factor
from hierax.infer.method import Commands, Maturity
from hierax.infer.saem.iteration import Iteration
from hierax.infer.saem.kernels import Landscape
from hierax.infer.saem.saem import SAEM
from hierax.infer.saem.state import Schedule, State, Trace


@dataclasses.dataclass(frozen=True)
class ImportanceEM(SAEM):
    """EM whose expectations come from importance samples around each subject's mode, found anew every iteration.

    The parameters are maximised as by :class:`SAEM`. The history's ``complete`` is the marginal log likelihood by
    importance sampling before each step, whereas SAEM's is the complete-data log likelihood.

    Parameters
    ----------
    samples : int
        Samples per subject and iteration.
    scale : float
        SDs of the proposal, as a multiple of those at the mode.
    exploratory, smoothing : int
        Largest number of iterations with full steps, and of those with smaller and smaller steps.
    automatic, annealing, optimiser, updates, objective
        As for :class:`SAEM`.

    Examples
    --------
    >>> hx.ImportanceEM(samples=500).label
    'importance-sampling EM (500 samples at the mode)'
    """

    samples: int = 300
    scale: float = 1.2
    exploratory: int = 60
    smoothing: int = 40
    burn_in: int = 0
    annealing: float = 0.0
    maturity: ClassVar[Maturity] = "beta"
    commands: ClassVar[Commands] = {"importance-em": {}}
    references: ClassVar[tuple[str, ...]] = ("bauer2007",)

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("samples", self.samples, 2)
        positive("scale", self.scale)

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
        return Sampling

    def chains_for(self, pop: Population) -> int:
        """Return the number of samples per subject."""
        return self.samples


class Sampling(Iteration):
    """One iteration: sample around each subject's mode, weight, maximise."""

    saem: ImportanceEM

    def __call__(self, state: State, now: Schedule) -> tuple[State, Trace]:
        """Return the state after the iteration, and what it shows."""
        key, here = jax.random.split(jax.random.wrap_key_data(state.key))
        state = state._replace(key=jax.random.key_data(key))
        params, program, pop = self.params_of(state.flat), self.program, self.pop
        drawn = self.propose(state, params, here)
        logs = jax.vmap(lambda e: program.log_joint(pop, params, e))(drawn.eta) - drawn.log_density
        # A sample without a finite density has weight 0. A subject with only such samples ends the fit (`stopped_by`).
        logs = jnp.where(self.real, jnp.where(jnp.isfinite(logs), logs, -jnp.inf), 0.0)
        weights = jax.nn.softmax(logs, axis=0)
        total = jnp.sum(jax.scipy.special.logsumexp(logs, axis=0) - jnp.log(float(len(logs))), where=self.real)
        effective = 1.0 / jnp.sum(weights**2, axis=0) / len(logs)
        root = program.prior_root(pop, params, drawn.centre)
        land = Landscape(program.reference(pop, params), root, drawn.factor)
        state = state._replace(chains=state.chains._replace(eta=drawn.eta, log_density=logs))
        state = self.remember(self.maximise(state, land, weights, now), drawn, weights, effective)
        shares = jnp.zeros(4).at[0].set(jnp.mean(effective, where=self.real))
        return state, Trace(state.flat, total, shares)

    def propose(self, state: State, params: Any, key: PRNGKeyArray) -> Drawn:
        """Return samples of all subjects, and the density, centre and root of their proposal."""
        anchor = self.saem.objective.anchor(self.program, self.pop, params, state.centre)
        factor = proposal_factor(jnp.linalg.inv(anchor.hessian) * self.saem.scale**2)
        z = jax.random.normal(key, state.chains.eta.shape)
        return drawn_from(anchor.eta, factor, z, log_normal(z))

    def remember(self, state: State, drawn: Drawn, weights: Array, effective: Array) -> State:
        """Return the state with what the next proposal needs; here nothing is added, because modes are found anew."""
        return state


class Drawn(NamedTuple):
    """Samples of a proposal.

    Attributes
    ----------
    eta : array, (sample, subject, coordinate)
    log_density : array, (sample, subject)
        Log density of the proposal at the samples.
    centre, factor : arrays, (subject, coordinate[, coordinate])
        Centre of the proposal, and the Cholesky factor of its scale matrix.
    """

    eta: Array
    log_density: Array
    centre: Vectors
    factor: Blocks


def drawn_from(centre: Vectors, factor: Blocks, z: Array, log_density: Array) -> Drawn:
    """Return centre + factor·z and its log density; ``log_density`` is that of z, (sample, subject)."""
    log_det = jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)
    return Drawn(centre + jnp.einsum("nij,cnj->cni", factor, z), log_density - log_det, centre, factor)
