"""What every estimator says of itself: its name, where it is described, and what it cannot treat."""

from __future__ import annotations

import abc

from hierax.data.population import Population
from hierax.errors import EstimatorError
from hierax.program.density import Program


class Method(abc.ABC):
    """Base of approximations of the marginal likelihood and of algorithms of their own."""

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
