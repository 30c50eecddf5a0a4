"""What a fit is asked to do, checked and laid out, whatever algorithm does it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hierax.arguments import mapping
from hierax.data.population import Population
from hierax.infer.marginal.estimator import Estimator
from hierax.infer.marginal.held_out import HeldOut
from hierax.infer.marginal.session import Session
from hierax.program.checking.survey import warn_of_data
from hierax.program.density import Program
from hierax.program.parameters import Fixed, Layout, layout
from hierax.program.priors import UsePriors, collect_priors, counting
from hierax.program.read import read_program
from hierax.program.trace import Model
from hierax.results.fit import Evaluation, Fit
from hierax.results.priors import priors_of


@dataclasses.dataclass
class Job:
    """A fit to be done.

    Attributes
    ----------
    flat, free : arrays, (parameter,)
        Start in unconstrained space, and what may vary.
    priors, counted : mapping
        All priors of population parameters, and those that count.
    given : mapping
        The priors that were passed beside the program's own.
    held_out, patience : Population, int
        Subjects for early stopping, if any, and how many looks without progress end the fit.
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
    held_out: Population | None = None
    patience: int = 5
    # What an interruption finds: the objectives in use, and where the algorithm stands.
    sessions: list[Session] = dataclasses.field(default_factory=list)
    known: Callable[[], dict[str, Any]] | None = None

    def watcher(self, estimator: Estimator) -> HeldOut | None:
        """Return what watches the held-out subjects, if there are any."""
        return None if self.held_out is None else HeldOut(self.program, self.held_out, estimator, self.patience)

    def session(self, estimator: Estimator) -> Session:
        """Return the objective of this job by an approximation of the marginal likelihood."""
        self.sessions.append(Session(self.program, estimator, self.pop, self.layout, self.counted))
        return self.sessions[-1]

    def record(self) -> dict[str, Any]:
        """Return what a result keeps of how it was asked for."""
        return {
            "ignored_priors": [name for name in self.priors if name not in self.counted],
            "seed": self.seed,
            "use_priors": self.use_priors,
            "given_priors": sorted(self.given),
        }


def prepare(
    model: Model,
    pop: Population,
    *,
    init: Mapping[str, Any] | Evaluation | None,
    fixed: Fixed,
    priors: Mapping[str, Any] | Fit | None,
    use_priors: UsePriors,
    seed: int,
    progress: bool,
    plate: str,
    bayesian: bool = False,
) -> Job:
    """Read the program and lay out its parameters, start values and priors."""
    program = read_program(model, pop, plate)
    places = layout(program)
    given = priors_of(priors) if isinstance(priors, Fit) else mapping("priors", priors, "names to distributions")
    everything = collect_priors(program, given)
    if isinstance(init, Evaluation):
        init = {name: init.params[name] for name in places.slices if name in init.params}
    flat = places.start(init)
    warn_of_data(program.sites, pop, places.params(flat))
    return Job(
        program=program,
        pop=pop,
        layout=places,
        flat=flat,
        free=places.free(fixed),
        priors=everything,
        counted=dict(everything) if bayesian and use_priors == "auto" else counting(program, everything, use_priors),
        given=given,
        use_priors=use_priors,
        seed=seed,
        progress=progress,
    )
