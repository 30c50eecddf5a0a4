"""What an algorithm is that is no maximisation of a marginal likelihood's approximation: SAEM, VI, NUTS, MAP."""

from __future__ import annotations

import abc
from typing import ClassVar, Literal

from hierax.data.population import Population
from hierax.errors import EstimatorError
from hierax.infer.estimator import Estimator
from hierax.program.density import Program


class Procedure(abc.ABC):
    """Base of the estimators that are algorithms of their own.

    Attributes
    ----------
    objective : Estimator
        The approximation of the marginal likelihood that is reported at the estimate, and that gives the EBEs.
    """

    objective: Estimator
    # Whether priors of population parameters count by themselves.
    bayesian: ClassVar[bool] = False
    # What kind of covariance of the estimates belongs to it.
    covariance: ClassVar[Literal["hessian", "louis"]] = "hessian"

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """Name of the algorithm."""

    @property
    def citation(self) -> str:
        """Where it is described."""
        return ""

    def refusals(self, program: Program, pop: Population) -> list[str]:
        """Say why this algorithm cannot treat a program; empty where it can."""
        return []

    def check(self, program: Program, pop: Population) -> None:
        """Raise for a program that this algorithm cannot treat."""
        found = self.refusals(program, pop)
        if found:
            raise EstimatorError("\n".join(found))
