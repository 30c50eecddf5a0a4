"""How a fit, or a subject of it, ended."""

from __future__ import annotations

import enum


class Result(enum.IntEnum):
    """Outcome of an optimisation; a failure is reported as one, and raised only on request.

    Examples
    --------
    >>> hx.Result.no_progress.meaning
    'no step decreases the objective although the gradient is not small'
    """

    converged = 0
    max_iterations = 1
    non_finite = 2
    not_positive_definite = 3
    no_progress = 4
    interrupted = 5
    solver_max_steps = 6
    solver_non_finite = 7
    no_steady_state = 8
    solver_not_linear = 9
    not_mixed = 10
    did_not_move = 11
    falling_to_boundary = 12
    degenerate = 13
    poor_guide = 14
    not_optimal = 15

    def __str__(self) -> str:
        return self.name

    @property
    def meaning(self) -> str:
        """The outcome in a sentence."""
        return _MEANING[self]


_MEANING = {
    Result.converged: "converged",
    Result.max_iterations: "stopped at the iteration limit before convergence",
    Result.non_finite: "the objective is not finite",
    Result.not_positive_definite: (
        "the Hessian is not positive definite at the mode: it has a flat direction or is a saddle point"
    ),
    Result.no_progress: "no step decreases the objective although the gradient is not small",
    Result.interrupted: "interrupted by the user",
    Result.solver_max_steps: "the ODE solver needs more steps than it may take",
    Result.solver_non_finite: "the right-hand side of the ODE is not finite",
    Result.no_steady_state: "no steady state of the doses was found",
    Result.not_mixed: "the chains have not mixed",
    Result.did_not_move: "a parameter never moved from its start value",
    Result.falling_to_boundary: "a variance is still falling towards 0, the boundary of its range",
    Result.degenerate: "the likelihood has no maximum: it grows without bound as a scale goes to 0",
    Result.poor_guide: "the guide is too far from the posterior to approximate it",
    Result.not_optimal: "the likelihood is higher at values far from those where the fit has ended",
    Result.solver_not_linear: "the ODE is not linear, but its solver works only for linear ones",
}
