"""The base of all estimators, which gives their name, where they are described, and what they cannot treat."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hierax.data.population import Population
from hierax.errors import EstimatorError
from hierax.options import Options
from hierax.program.density import Program

if TYPE_CHECKING:
    from hierax.infer.fitting.job import Job
    from hierax.infer.fitting.outcome import Outcome

Maturity = Literal["stable", "beta", "experimental"]
# Names on the command line, each with the options that it stands for.
Commands = Mapping[str, Mapping[str, Any]]
# Every estimator by its name on the command line, with the options that the name stands for.
COMMANDS: dict[str, tuple[type[Any], Mapping[str, Any]]] = {}


class Method(Options, abc.ABC):
    """Base of all estimators: approximations of the marginal likelihood, and algorithms such as SAEM.

    Attributes
    ----------
    commands : dict
        The names of the estimator on the command line, each with the options that it stands for.
    maturity : {"stable", "beta", "experimental"}
        How long it has been held to published values: a stable estimator changes its numbers only with a reason in the
        changelog, a beta one may change its options, and an experimental one may go.
    references : tuple of str
        Keys of ``hierax.diagnose.references`` under which the method is described.
    """

    commands: ClassVar[Commands] = {}
    references: ClassVar[tuple[str, ...]] = ()
    maturity: ClassVar[Maturity] = "stable"
    # Whether priors of population parameters count without being asked for, whether held-out subjects can end a fit,
    # and whether a fit may have several starts.
    bayesian: ClassVar[bool] = False
    stops_early: ClassVar[bool] = False
    several_starts: ClassVar[bool] = False

    @abc.abstractmethod
    def run(self, job: Job) -> Outcome:
        """Do a fit.

        Parameters
        ----------
        job : Job
            Program, population, start values, what is free, priors, seed, progress and checkpoint.

        Returns
        -------
        Outcome
            Estimates, how the fit ended, its history, and fields that only this method has.
        """

    def __init_subclass__(cls, **options: Any) -> None:
        """Register a subclass under the names that it has on the command line."""
        super().__init_subclass__(**options)
        for name, chosen in vars(cls).get("commands", {}).items():
            COMMANDS[name] = (cls, chosen)

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """Name of the method, printed with every objective."""

    @property
    def citation(self) -> str:
        """Where the method is described."""
        return ""

    def refusals(self, program: Program, pop: Population) -> list[str]:
        """Say why this method cannot treat a program; empty where it can."""
        return []

    def check(self, program: Program, pop: Population) -> None:
        """Raise for a program that this method cannot treat."""
        found = self.refusals(program, pop)
        if found:
            raise EstimatorError("\n".join(found))
