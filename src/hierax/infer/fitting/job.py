"""The checked description of a fit, which any algorithm can carry out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hierax.data.population import Population
from hierax.errors import EstimatorError
from hierax.infer.fitting.maximise import maximise
from hierax.infer.fitting.outcome import Outcome
from hierax.infer.marginal.estimator import Estimator
from hierax.infer.marginal.held_out import HeldOut
from hierax.infer.marginal.objective import Evaluated
from hierax.infer.marginal.session import Session
from hierax.infer.run.checkpoint import Checkpoint
from hierax.program.density import Program
from hierax.program.parameters import Layout
from hierax.program.priors import UsePriors


@dataclasses.dataclass
class Job:
    """A fit to be done.

    Attributes
    ----------
    flat, free : arrays, (parameter,)
        Start in unconstrained space, and which parameters may vary.
    priors, counted : mapping
        All priors of population parameters, and those that count in the objective.
    given : mapping
        The priors that were passed in addition to the program's own.
    starts : int
        Number of starts from which to search.
    checkpoint : Checkpoint
        Where the state of the fit is kept.
    held_out, patience : Population, int
        Subjects for early stopping, if any, and how many evaluations of them without progress end the fit.
    """

    program: Program
    pop: Population
    layout: Layout
    flat: np.ndarray
    free: np.ndarray
    priors: Mapping[str, Any]
    counted: Mapping[str, Any]
    given: Mapping[str, Any]
    use_priors: UsePriors
    seed: int
    progress: bool
    starts: int = 1
    checkpoint: Checkpoint = dataclasses.field(default_factory=Checkpoint)
    held_out: Population | None = None
    patience: int = 5
    # Says, in words for a message, what is wrong where a density is not finite.
    explain: Callable[[Session, np.ndarray, Evaluated], str] = lambda session, flat, out: ""
    # What is known if the fit is interrupted: the objectives in use, and where the algorithm stands.
    sessions: list[Session] = dataclasses.field(default_factory=list)
    known: Callable[[], dict[str, Any]] | None = None

    def watcher(self, estimator: Estimator) -> HeldOut | None:
        """Return the watcher of the held-out subjects, or None if there are none."""
        return None if self.held_out is None else HeldOut(self.program, self.held_out, estimator, self.patience)

    def session(self, estimator: Estimator) -> Session:
        """Return this job's objective with the given approximation of the marginal likelihood."""
        self.sessions.append(Session(self.program, estimator, self.pop, self.layout, self.counted))
        return self.sessions[-1]

    def maximise(self, estimator: Estimator) -> Outcome:
        """Maximise an approximation of the marginal likelihood."""
        return maximise(self, estimator)

    def need_priors(self, label: str) -> None:
        """Refuse a program some of whose free parameters have no prior."""
        places = self.layout.slices
        bare = [name for name, place in places.items() if name not in self.counted and self.free[place].any()]
        if bare:
            raise EstimatorError(
                f"{label} needs a prior for every population parameter, but {bare} have none. Pass them with "
                f"fit(priors={{'{bare[0]}': dist.LogNormal(...)}}), write them as sample sites, or hold them with "
                f"fixed=."
            )

    def record(self) -> dict[str, Any]:
        """Return those parts of the request that a result keeps."""
        return {
            "ignored_priors": [name for name in self.priors if name not in self.counted],
            "seed": self.seed,
            "use_priors": self.use_priors,
            "given_priors": sorted(self.given),
        }
