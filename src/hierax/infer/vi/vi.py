"""Variational inference: guides of the random effects, population parameters as points or with a guide."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import optax

from hierax.arguments import positive
from hierax.data.population import Population
from hierax.infer.clipping import cut_outliers
from hierax.infer.marginal.estimator import Estimator
from hierax.infer.marginal.laplace import Laplace
from hierax.infer.method import Commands, Maturity
from hierax.infer.procedure import Procedure
from hierax.infer.vi.guide import Guide, Normal
from hierax.infer.vi.run import run_vi
from hierax.program.density import Program

if TYPE_CHECKING:
    from hierax.infer.fitting.job import Job
    from hierax.infer.fitting.outcome import Outcome


@dataclasses.dataclass(frozen=True)
class VI(Procedure):
    """Maximise a lower bound of the marginal likelihood over the guides of all subjects and the parameters.

    Parameters
    ----------
    guide : Guide
        Family of each subject's distribution: :class:`~hierax.guides.Normal`, ``Sinh`` (a flow), or ``Amortised`` (an
        encoder network).
    population : {"point", "full", "mean-field"}
        Whether population parameters are points (variational EM), or have a guide of their own, for which they need
        priors: "mean-field" is a Gaussian without correlations; "full" has correlations, skewness and tails (a
        sinh-arcsinh flow of every coordinate). With such a guide, the guides of random effects are conditional on the
        population parameters (except network weights), and the fit is judged by the Pareto k of its importance
        weights, in which random effects are integrated out.
    samples : int
        K of the importance-weighted bound; 1 is the ELBO. More samples reduce the bias: with the ELBO, the SDs of
        random effects about which the data say little are estimated too low.
    particles : int, optional
        Independent repetitions per step, which lower the noise and nothing else. The default is 1, or 8 if the
        population parameters have a guide, because each repetition has a single draw of them for all subjects.
    gradient : {"path", "total"}
        Gradient in the guide's parameters: path derivatives (doubly reparameterised if K > 1), whose noise vanishes
        where the guide is exact; or the plain reparameterised gradient.
    batch : int, optional
        Subjects per step; by default all. A subject's own guide does not move in steps whose batch lacks the subject.
    steps : int
        Largest number of steps. In the last third of them (fewer after an early end) the learning rate falls to a
        hundredth.
    automatic : bool
        Whether the phase at full learning rate ends as soon as the smoothed bound has no trend left.
    learning_rate : float
        Learning rate of population parameters and guides, in unconstrained space. The weights of flows of random
        effects, of which a step can do much harm, have a quarter of it.
    optimiser : optax optimiser, optional
        Transformation that scales gradients; by default ``optax.scale_by_adam()``, after outliers among the gradients
        are cut. Every subject's own guide has its own state.
    objective : Estimator
        Approximation by which residuals are computed; the EBEs are the guide's means.

    Examples
    --------
    >>> hx.VI(hx.guides.Sinh(), steps=2000).label
    'VI, Sinh guide'
    """

    guide: Guide = Normal()
    population: Literal["point", "full", "mean-field"] = "point"
    samples: int = 1
    particles: int | None = None
    gradient: Literal["path", "total"] = "path"
    batch: int | None = None
    steps: int = 6000
    automatic: bool = True
    learning_rate: float = 0.02
    optimiser: Any = None
    objective: Estimator = Laplace()
    maturity: ClassVar[Maturity] = "beta"
    stops_early: ClassVar[bool] = True
    commands: ClassVar[Commands] = {"vi": {}, "vi-full": {"population": "full"}}
    references: ClassVar[tuple[str, ...]] = ("kingma2014", "burda2016", "tucker2019")

    def __post_init__(self) -> None:
        positive("learning_rate", self.learning_rate)
        if min(self.samples, self.repetitions, self.steps) < 1 or (self.batch is not None and self.batch < 1):
            raise ValueError(
                "VI needs samples, particles, steps and batch of 1 or more. Leave batch out to use all subjects in "
                "every step."
            )

    @property
    def label(self) -> str:
        """Name of the algorithm."""
        kind = "VI" if self.samples == 1 else f"importance-weighted VI (K = {self.samples})"
        return f"{kind}, {type(self.guide).__name__} guide"

    @property
    def citation(self) -> str:
        """Where it is described."""
        return "Kingma & Welling (2014); Burda, Grosse & Salakhutdinov (2016); Tucker et al. (2019)"

    def run(self, job: Job) -> Outcome:
        """Run steps in blocks until the bound has no trend."""
        return run_vi(job, self)

    def refusals(self, program: Program, pop: Population) -> list[str]:
        """Say why VI cannot fit a program; empty if it can."""
        if program.sites.effects:
            return self.guide.refusals(program, pop)
        return ["VI approximates random effects' distributions, but the program has none. Use NaivePooled()."]

    @property
    def repetitions(self) -> int:
        """Number of repetitions per step."""
        return (1 if self.population == "point" else 8) if self.particles is None else self.particles

    def scaler(self) -> optax.GradientTransformation:
        """Return the transformation that scales gradients."""
        return self.optimiser or optax.chain(cut_outliers(), optax.scale_by_adam())
