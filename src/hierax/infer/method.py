"""What every estimator says of itself: its name, where it is described, and what it cannot treat."""

from __future__ import annotations

import abc
import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from hierax.data.population import Population
from hierax.errors import EstimatorError
from hierax.program.density import Program

# Names on the command line, each with the options that it stands for.
Commands = Mapping[str, Mapping[str, Any]]
# Every estimator by its name on the command line, with the options that the name stands for.
COMMANDS: dict[str, tuple[type[Any], Mapping[str, Any]]] = {}


class Method(abc.ABC):
    """Base of approximations of the marginal likelihood and of algorithms of their own.

    Attributes
    ----------
    commands : dict
        The names of the estimator on the command line, each with the options that it stands for.
    references : tuple of str
        Keys of ``hierax.diagnose.references`` under which the method is described.
    """

    commands: ClassVar[Commands] = {}
    references: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        """Register a subclass under the names that it has on the command line."""
        super().__init_subclass__(**options)
        for name, chosen in vars(cls).get("commands", {}).items():
            COMMANDS[name] = (cls, chosen)

    def __new__(cls, *values: Any, **options: Any) -> Self:
        """Refuse an option that there is not, naming those that there are."""
        known = [field.name for field in dataclasses.fields(cls) if field.init] if dataclasses.is_dataclass(cls) else []
        wrong = [name for name in options if name not in known]
        if wrong and cls.__init__ is not object.__init__ and known:
            close = [near for name in wrong for near in difflib.get_close_matches(name, known, 1)]
            meant = f"Did you mean {close[0]}=? " if close else ""
            raise TypeError(
                f"{cls.__name__} has no option {', '.join(f'{name}=' for name in wrong)}. {meant}Its options are "
                f"{', '.join(known)}."
            )
        return super().__new__(cls)

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
