"""NUTS on the whole program, or on its marginal likelihood."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from hierax.arguments import whole
from hierax.data.population import Population
from hierax.infer.marginal.estimator import Estimator
from hierax.infer.marginal.laplace import FOCE, Laplace
from hierax.infer.mcmc.run import run_marginal_nuts, run_nuts
from hierax.infer.method import Commands, Maturity
from hierax.infer.procedure import Procedure
from hierax.program.density import Program

if TYPE_CHECKING:
    from hierax.infer.fitting.job import Job
    from hierax.infer.fitting.outcome import Outcome


@dataclasses.dataclass(frozen=True)
class Sampler(Procedure):
    """Options that NUTS on the joint and on the marginal density have in common."""

    warmup: int = 1000
    draws: int = 1000
    chains: int = 4
    target_accept: float = 0.8
    max_tree_depth: int = 10
    chain_method: Literal["vectorized", "sequential"] = "vectorized"
    objective: Estimator = Laplace()
    bayesian: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if min(self.warmup, self.draws, self.chains) < 1:
            raise ValueError(f"{type(self).__name__} needs warmup, draws and chains of 1 or more; 4 chains are usual.")
        whole("max_tree_depth", self.max_tree_depth, 1)
        if not 0 < self.target_accept < 1:
            raise ValueError(
                f"target_accept={self.target_accept} must be a rate between 0 and 1. Use 0.8, or 0.95 where draws "
                f"diverge."
            )

    @property
    def citation(self) -> str:
        """Where it is described."""
        return "Hoffman & Gelman (2014), J Mach Learn Res 15:1593; NumPyro, Phan, Pradhan & Jankowiak (2019)"


@dataclasses.dataclass(frozen=True)
class NUTS(Sampler):
    """The No-U-Turn sampler of NumPyro on population parameters and random effects together.

    All free population parameters need priors, in the program or by ``fit(priors=)``; ``param`` sites are lifted.

    Parameters
    ----------
    warmup, draws, chains : int
        Iterations of each chain before and after its adaptation ends, and the number of chains.
    target_accept, max_tree_depth
        As in NumPyro; a higher ``target_accept`` takes shorter steps.
    chain_method : {"vectorized", "sequential"}
        Whether chains run side by side, or one after the other (faster if one needs far more steps than the others).
    objective : Estimator
        Approximation by which EBEs and residuals at the posterior mean are computed.
    centring : {"auto", True, False}
        Whether random effects are sampled centred (φ = η + Aθ) or as standard normals; "auto" chooses by how much
        the data say about each.

    Examples
    --------
    >>> hx.NUTS(warmup=500, draws=500).label
    'NUTS (4 chains of 500 draws)'
    """

    centring: Literal["auto"] | bool = "auto"
    commands: ClassVar[Commands] = {"nuts": {}}
    references: ClassVar[tuple[str, ...]] = ("hoffman2014",)

    def run(self, job: Job) -> Outcome:
        """Sample the joint posterior."""
        return run_nuts(job, self)

    @property
    def label(self) -> str:
        """Name of the algorithm."""
        return f"NUTS ({self.chains} chains of {self.draws} draws)"


@dataclasses.dataclass(frozen=True)
class MarginalNUTS(Sampler):
    """The No-U-Turn sampler on population parameters alone: random effects are integrated out inside the density.

    Parameters
    ----------
    objective : FOCE, Laplace or AGQ
        The approximation that integrates them out. The posterior is that of the approximation: AGQ(5) is close to the
        exact one, FOCE and Laplace are as far from it as their likelihoods are.
    warmup, draws, chains, target_accept, max_tree_depth, chain_method
        As for :class:`NUTS`.

    Examples
    --------
    >>> hx.MarginalNUTS(chains=2).label
    'NUTS on the marginal likelihood (2 chains of 1000 draws)'
    """

    objective: Estimator = FOCE()
    maturity: ClassVar[Maturity] = "beta"
    commands: ClassVar[Commands] = {"marginal-nuts": {}}
    references: ClassVar[tuple[str, ...]] = ("hoffman2014",)

    def run(self, job: Job) -> Outcome:
        """Sample the posterior of the population parameters."""
        return run_marginal_nuts(job, self)

    @property
    def label(self) -> str:
        """Name of the algorithm."""
        return f"NUTS on the marginal likelihood ({self.chains} chains of {self.draws} draws)"

    def refusals(self, program: Program, pop: Population) -> list[str]:
        """Say why this algorithm cannot fit a program; empty if it can."""
        return self.objective.refusals(program, pop)
