"""MAP estimates: of the marginal density, and of the joint density."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from hierax.data.population import Population
from hierax.errors import tell
from hierax.infer.marginal.estimator import Anchor, Estimator, ModeEstimator, Params
from hierax.infer.marginal.laplace import FOCE
from hierax.infer.marginal.modes import Newton
from hierax.infer.method import Commands, Maturity
from hierax.infer.procedure import Procedure
from hierax.infer.search.options import QuasiNewton
from hierax.program.density import Program

if TYPE_CHECKING:
    from hierax.infer.fitting.job import Job
    from hierax.infer.fitting.outcome import Outcome


@dataclasses.dataclass(frozen=True)
class MAP(Procedure):
    """Maximum a posteriori: the mode of prior × marginal likelihood, in constrained parameters.

    Parameters
    ----------
    objective : FO, FOCE, Laplace or AGQ
        The approximation of the marginal likelihood.

    Examples
    --------
    >>> hx.MAP(hx.Laplace()).label
    'MAP'
    """

    objective: Estimator = FOCE()
    maturity: ClassVar[Maturity] = "beta"
    bayesian: ClassVar[bool] = True
    commands: ClassVar[Commands] = {"map": {}}

    def run(self, job: Job) -> Outcome:
        """Maximise the approximation, with all priors as a penalty."""
        if not job.counted:
            tell(
                "MAP finds no prior of a population parameter, so that it maximises the likelihood alone. Pass "
                "priors=, or write these parameters as sample sites."
            )
        return job.maximise(self.objective)

    @property
    def label(self) -> str:
        """Name of the algorithm."""
        return "MAP"


@dataclasses.dataclass(frozen=True)
class Joint(ModeEstimator):
    """−log joint density at the modes: the profile that :class:`JointMAP` minimises; no marginal likelihood."""

    newton: Newton = Newton()
    optimiser: QuasiNewton = QuasiNewton()

    @property
    def label(self) -> str:
        """Name of the objective."""
        return "joint density at the modes (no marginal likelihood)"

    def negative_log_likelihood(
        self, program: Program, pop: Population, params: Params, anchor: Anchor
    ) -> Float[Array, " subject"]:
        """Return −log p(y_i, η̂_i); by the envelope theorem its gradient is that at fixed modes."""
        value = self.joint(program, pop, params, anchor.eta)
        return jnp.where(jnp.asarray(pop.subject_mask), value, 0.0)


@dataclasses.dataclass(frozen=True)
class JointMAP(Procedure):
    """The joint mode of population parameters and random effects: prior × likelihood × random effects' density.

    Quick, and no substitute for a marginal estimate: SDs of random effects are biased low, and without priors that
    keep them from 0 there is no mode at all.

    Examples
    --------
    >>> hx.JointMAP().label
    'joint MAP'
    """

    objective: Estimator = Joint()
    maturity: ClassVar[Maturity] = "experimental"
    bayesian: ClassVar[bool] = True
    commands: ClassVar[Commands] = {"joint-map": {}}

    def run(self, job: Job) -> Outcome:
        """Maximise the joint density."""
        job.need_priors("JointMAP")
        return job.maximise(self.objective)

    @property
    def label(self) -> str:
        """Name of the algorithm."""
        return "joint MAP"
