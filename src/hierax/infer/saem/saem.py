"""SAEM: stochastic approximation of the EM algorithm, on the program as it stands."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hierax.data.population import Population
from hierax.infer.marginal.estimator import Estimator
from hierax.infer.marginal.laplace import Laplace
from hierax.infer.method import Commands
from hierax.infer.procedure import Procedure
from hierax.infer.saem.iteration import Iteration
from hierax.infer.saem.kernels import Kernels
from hierax.infer.saem.run import run_saem
from hierax.program.density import Program

if TYPE_CHECKING:
    from hierax.infer.fitting.job import Job
    from hierax.infer.fitting.outcome import Outcome


@dataclasses.dataclass(frozen=True)
class SAEM(Procedure):
    """Stochastic approximation EM (Delyon, Lavielle & Moulines 1999; Kuhn & Lavielle 2005).

    Random effects are simulated by Markov chains of all subjects at once. Parameters of Gaussian random effects, and
    parameters that only shift random effects (cl in cl·exp(η), effects of covariates), are maximised exactly from the
    averaged moments; all others (residual error, parameters without random effects) by Newton steps with an averaged
    Hessian, and network weights by ``optimiser``. Which is which is found by looking at the program.

    Parameters
    ----------
    exploratory, smoothing : int
        Largest number of iterations of the exploratory phase, whose steps are 1, and of the smoothing phase, whose
        steps fall as k to the power −0.7. The estimates are means over the last three quarters of the smoothing phase.
    automatic : bool
        Whether a phase ends early: the first where no parameter has a trend left, the second where the averages no
        longer move by more than 1.5 % of their spread over the exploratory phase.
    chains : int, optional
        Chains per subject; by default as many as give 400 chains of all subjects together. With few subjects, more
        chains make the estimates more precise, and cost little.
    kernels : Kernels
        The moves of an iteration.
    burn_in : int
        Iterations of the chains before the first maximisation.
    annealing : float
        During the first third of the exploratory phase no variance of a random effect falls by more than this factor
        per iteration; 0 for no such limit.
    optimiser : optax optimiser, optional
        Optimiser of network weights, and of parameters without a closed form if there are many; by default Adam at
        1e-2, after outliers among the gradients are cut.
    updates : int
        Steps of the optimiser per iteration: networks take some thousand steps to train, chains only some hundred
        iterations.
    objective : Estimator
        Approximation for the reported log likelihood and the EBEs at the estimate. :func:`hierax.log_likelihood` gives
        the log likelihood by importance sampling or quadrature.

    Examples
    --------
    >>> hx.SAEM(exploratory=150, smoothing=100).label
    'SAEM'
    """

    exploratory: int = 300
    smoothing: int = 400
    automatic: bool = True
    chains: int | None = None
    kernels: Kernels = Kernels()
    burn_in: int = 5
    annealing: float = 0.97
    optimiser: Any = None
    updates: int = 5
    objective: Estimator = Laplace()
    stops_early: ClassVar[bool] = True
    covariance: ClassVar[Literal["hessian", "louis"]] = "louis"
    commands: ClassVar[Commands] = {"saem": {}}
    references: ClassVar[tuple[str, ...]] = ("delyon1999", "kuhn2005")

    def __post_init__(self) -> None:
        if self.exploratory < 1 or self.smoothing < 1:
            raise ValueError(
                f"SAEM(exploratory={self.exploratory}, smoothing={self.smoothing}) must have one iteration or more "
                f"in each phase; 300 and 200 are usual."
            )
        if self.chains is not None and self.chains < 1:
            raise ValueError(
                f"SAEM(chains={self.chains}) must be 1 or more per subject, or None, which gives about 400 chains in "
                f"all."
            )
        if self.updates < 1:
            raise ValueError(
                f"SAEM(updates={self.updates}) must be 1 or more, because it is the number of training steps of the "
                f"weights in an iteration."
            )
        if not 0 <= self.annealing < 1:
            raise ValueError(
                f"SAEM(annealing={self.annealing}) must be a factor from 0 to below 1. Use 0.97, or 0 for none."
            )

    @property
    def label(self) -> str:
        """Name of the algorithm."""
        return "SAEM"

    @property
    def citation(self) -> str:
        """Where it is described."""
        return "Kuhn & Lavielle (2005), Comput Stat Data Anal 49:1020"

    def run(self, job: Job) -> Outcome:
        """Run iterations in blocks until both phases are over."""
        return run_saem(job, self)

    def refusals(self, program: Program, pop: Population) -> list[str]:
        """Say why SAEM cannot fit a program; empty if it can."""
        if not program.sites.effects:
            return [
                "SAEM simulates random effects, but the program has none. Use NaivePooled(), or add random effects."
            ]
        if program.flows and not program.invertible(pop):
            without = f"the flow of {list(program.flows)} has no inverse to compute their coordinates by"
            return [
                (
                    f"{self.label} trains a flow by the values of random effects, but {without}. Use hx.flow or "
                    f"NumPyro's IAF, or fit by VI()."
                )
            ]
        return []

    @property
    def iteration(self) -> type[Iteration]:
        """What one iteration does."""
        return Iteration

    def chains_for(self, pop: Population) -> int:
        """Return the number of chains per subject."""
        return self.chains or max(1, -(-400 // max(len(pop), 1)))
