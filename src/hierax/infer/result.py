"""How a fit, or a subject of it, ended."""

from __future__ import annotations

import enum


class Result(enum.IntEnum):
    """Outcome of an optimisation; failures are data, raised only on request."""

    converged = 0
    max_iterations = 1
    non_finite = 2
    not_positive_definite = 3
    no_progress = 4
    interrupted = 5

    @property
    def meaning(self) -> str:
        """The outcome in a sentence."""
        return _MEANING[self]


_MEANING = {
    Result.converged: "converged",
    Result.max_iterations: "stopped at the iteration limit before convergence",
    Result.non_finite: "the objective is not finite",
    Result.not_positive_definite: "the Hessian is not positive definite at the mode: a direction is flat or a saddle",
    Result.no_progress: "no step decreases the objective although the gradient is not small",
    Result.interrupted: "interrupted by the user",
}
