"""The search over population parameters: quasi-Newton steps asked from optimistix, evaluations told to it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from hierax.infer.result import Result


@dataclasses.dataclass(frozen=True)
class QuasiNewton:
    """BFGS with backtracking, in coordinates scaled by the subjects' scores.

    Parameters
    ----------
    gtol : float
        Converged when the standardised gradient sqrt(gᵀS⁻¹g), S the sum of the subjects' score outer products, is
        below it: the distance to the optimum in standard errors, whatever the units of the parameters.
    max_iter : int
        Limit on evaluations.
    max_step : float
        Longest step of a bounded parameter (positive, in an interval) in unconstrained space: a longer one is halved
        before the objective is looked at, so that a search stays in the valley that it starts in.
    """

    gtol: float = 1e-4
    max_iter: int = 500
    max_step: float = 1.5


class Point(NamedTuple):
    """The objective at one point, as the optimiser sees it (-log likelihood scale, free parameters only)."""

    value: float
    gradient: np.ndarray
    scores: np.ndarray | None
    state: Any
    penalty: float = 0.0


class Search(NamedTuple):
    """How a search ended, and its best point."""

    x: np.ndarray
    point: Point
    result: Result
    why: str
    history: list[dict[str, float]]


class Enough(Exception):
    """Raised by ``watch``: the search is to end; says why."""


Evaluate = Callable[[np.ndarray, Any], Point]
# A line search that has halved this often is not limited by the step but by the objective.
_HALVINGS = 30
# After this many refused steps in a row, the modes themselves are looked at.
_SUSPICION = 6
_RESTARTS = 4
# So many changes of the objective by ``watch`` are no restarts.
_CHANGES = 20
_STILL = 4


def minimise(
    evaluate: Evaluate,
    x: np.ndarray,
    state: Any,
    options: QuasiNewton,
    report: Callable[[dict[str, float]], None],
    bounded: np.ndarray | None = None,
    anew: Callable[[np.ndarray, Any], Any] | None = None,
    watch: Callable[[np.ndarray, Any], bool] | None = None,
) -> Search:
    """Minimise a smooth objective from ``x``.

    ``evaluate(x, state)`` returns a :class:`Point`; its ``state`` (the modes) of the last accepted point is handed
    to the next evaluation as a warm start. ``bounded`` marks the entries that ``max_step`` holds for.
    ``anew(x, state)`` returns a better state than ``state``, or None: it is asked where a search ends or meets a
    cliff. ``watch(x, state)`` looks at every accepted point, and returns whether it has changed the objective (by
    placing the grid of an ODE anew); it raises :class:`Enough` to end the search. Interrupting (Ctrl-C) returns the
    best point so far.
    """
    run = _Run(evaluate, options, report, np.zeros(len(x), bool) if bounded is None else bounded, anew, watch)
    try:
        # A step may overshoot to infinity; the objective is not finite there, and the search steps back.
        with np.errstate(over="ignore", invalid="ignore"):
            result, why = run.go(np.asarray(x, float), state)
    except Enough as reason:
        result, why = Result.converged, str(reason)
    except KeyboardInterrupt:
        result, why = Result.interrupted, Result.interrupted.meaning
        if run.best is None:
            raise
    assert run.best is not None
    return Search(run.best_x, run.best, result, why, run.history)


class _Run:
    """One search: its best point, its history, and the rules by which it ends."""

    def __init__(
        self,
        evaluate: Evaluate,
        options: QuasiNewton,
        report: Callable[[dict[str, float]], None],
        bounded: np.ndarray,
        anew: Callable[[np.ndarray, Any], Any] | None,
        watch: Callable[[np.ndarray, Any], bool] | None = None,
    ):
        self.watch, self.changed = watch, 0
        self.evaluate, self.options, self.report, self.bounded, self.anew = evaluate, options, report, bounded, anew
        self.best: Point | None = None
        self.best_x = np.zeros(0)
        self.history: list[dict[str, float]] = []
        self.started = time.perf_counter()

    def go(self, x: np.ndarray, state: Any) -> tuple[Result, str]:
        """Search, rescaling and starting BFGS anew where a line search finds no decrease."""
        point = self.see(x, state, 0.0)
        if not _finite(point):
            return Result.non_finite, "the objective is not finite at the start values"
        if x.size == 0:
            return Result.converged, "nothing is free to vary"
        attempt = -1
        while attempt < _RESTARTS:
            attempt += 1
            before = self.best.value if self.best is not None else np.inf
            changes = self.changed
            done = self.descend()
            if self.changed > changes:
                attempt -= self.changed <= _CHANGES
                continue
            # Where the search has ended, modes that were followed for long may no longer be the best ones.
            if self.refresh():
                continue
            if done is not None:
                return done
            assert self.best is not None
            if attempt and before - self.best.value <= 1e-9 * (1 + abs(before)):
                break
        assert self.best is not None
        norm = standardised(self.best)
        if norm < 100 * self.options.gtol:
            return Result.converged, f"no step decreases the objective; standardised gradient {norm:.1e}"
        return Result.no_progress, Result.no_progress.meaning

    def descend(self) -> tuple[Result, str] | None:
        """Run BFGS from the best point; None where the line search gave up."""
        assert self.best is not None
        if standardised(self.best) < self.options.gtol:
            return Result.converged, "the standardised gradient is below gtol"
        origin, scale = self.best_x, scaling(self.best)
        bfgs = _AskTell(np.zeros_like(origin))
        bfgs.tell(self.best.value, scale.T @ self.best.gradient)
        refused, still, ahead, suspected = 0, 0, 0, False
        while len(self.history) < self.options.max_iter:
            if not refused:
                # Where the last step had to be halved twice, this one will have to be too: half of that is not tried.
                bfgs.halve(ahead)
            step = self.shorten(bfgs, origin, scale)
            promised = bfgs.promised()
            previous = self.best.value
            point = self.see(origin + scale @ step, self.best.state, float(np.linalg.norm(step)))
            accepted = bfgs.tell(point.value, scale.T @ point.gradient)
            if accepted:
                if self.watch is not None and self.watch(self.best_x, self.best.state):
                    self.changed += 1
                    self.see(self.best_x, self.best.state, 0.0, replace=True)
                    return None
                if standardised(self.best) < self.options.gtol:
                    return Result.converged, "the standardised gradient is below gtol"
                # With few subjects their scores say little of the curvature; BFGS knows it after some steps.
                if bfgs.accepted > 2 * origin.size and bfgs.decrement() < self.options.gtol**2:
                    return Result.converged, "the decrease that is left to expect is below gtol²"
                ahead = max(ahead + refused - 1, 0)
                refused, suspected = 0, False
                still = still + 1 if previous - self.best.value <= 1e-11 * (1 + abs(previous)) else 0
                if still >= _STILL:
                    return Result.converged, "the objective no longer changes"
            else:
                refused += 1
                if point.value - previous > promised:
                    # So far above the tangent, a parabola has its minimum within a quarter of the step.
                    bfgs.halve(1)
                    refused += 1
            if refused >= _SUSPICION and not suspected:
                suspected = True
                if self.refresh():
                    return None
            if refused > _HALVINGS:
                return None
        return Result.max_iterations, Result.max_iterations.meaning

    def refresh(self) -> bool:
        """Let the modes at the best point be sought anew; return whether that changed anything.

        The objective with better modes may be higher: it replaces the best point all the same.
        """
        assert self.best is not None
        state = None if self.anew is None else self.anew(self.best_x, self.best.state)
        if state is None:
            return False
        self.see(self.best_x, state, 0.0, replace=True)
        return True

    def shorten(self, bfgs: _AskTell, origin: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Return the step that is asked for, halved until no bounded parameter moves too far from the best point."""
        for _ in range(_HALVINGS):
            step = bfgs.ask()
            moved = np.abs(origin + scale @ step - self.best_x)[self.bounded]
            if not moved.size or moved.max() <= self.options.max_step:
                break
            bfgs.halve(1)
        return bfgs.ask()

    def see(self, x: np.ndarray, state: Any, step: float, *, replace: bool = False) -> Point:
        """Evaluate, remember the best point (or ``replace`` it), and report."""
        point = self.evaluate(x, state)
        if not _finite(point):
            point = point._replace(value=np.inf, gradient=np.zeros_like(x))
        if replace or self.best is None or point.value < self.best.value:
            self.best, self.best_x = point, x
        row = {
            "iteration": float(len(self.history)),
            "value": point.value - point.penalty,
            "gradient": standardised(point) if _finite(point) else np.nan,
            "step": step,
            "seconds": time.perf_counter() - self.started,
        }
        self.history.append(row)
        self.report(row)
        return point


def _finite(point: Point) -> bool:
    # Scores whose squares overflow are of no use either: such a point is too far out.
    squares = point.gradient if point.scores is None else point.scores @ point.scores.T
    return bool(np.isfinite(point.value) and np.isfinite(point.gradient).all() and np.isfinite(squares).all())


def standardised(point: Point) -> float:
    """Return sqrt(gᵀS⁻¹g), the gradient in units of its own sampling SD; without scores, its largest entry."""
    if point.scores is None:
        return float(np.abs(point.gradient).max(initial=0.0))
    return float(np.linalg.norm(scaling(point).T @ point.gradient))


def scaling(point: Point) -> np.ndarray:
    """Return C with C Cᵀ ≈ S⁻¹ from the subjects' scores: in x = C⁻¹u, steps and curvatures are of order one."""
    size = point.gradient.size
    if point.scores is None:
        return np.eye(size) / max(1.0, float(np.abs(point.gradient).max(initial=0.0)))
    outer = point.scores @ point.scores.T
    spread = np.sqrt(np.diag(outer))
    spread = np.where(spread > 0, spread, 1.0)
    correlation = outer / spread[:, None] / spread[None, :]
    values, vectors = np.linalg.eigh(0.95 * correlation + 0.05 * np.eye(size))
    return (vectors / np.sqrt(np.maximum(values, 1e-3)) @ vectors.T) / spread[:, None]


class _AskTell:
    """optimistix's BFGS, one step at a time: it asks for a point, and is told value and gradient there.

    The model is evaluated outside, by the one compiled function that everything else uses too; what is compiled
    here knows nothing of the model.
    """

    def __init__(self, x: np.ndarray):
        import equinox
        import jax
        import jax.numpy as jnp
        import optimistix

        self.solver = optimistix.BFGS(rtol=1e-8, atol=1e-8)
        self.step = equinox.filter_jit(_bfgs_step)
        self.x = jnp.asarray(x)
        self.accepted = 0
        scalar = jax.ShapeDtypeStruct((), self.x.dtype)
        self.state = self.solver.init(_told, self.x, None, {}, scalar, None, frozenset())

    def ask(self) -> np.ndarray:
        """Return the point to evaluate next."""
        return np.asarray(self.state.y_eval)

    def tell(self, value: float, gradient: np.ndarray) -> bool:
        """Take value and gradient at the asked point; return whether it was accepted."""
        import jax.numpy as jnp

        before = self.accepted
        told = (jnp.asarray(value, self.x.dtype), jnp.asarray(gradient, self.x.dtype))
        self.x, self.state = self.step(self.solver, self.x, told, self.state)
        self.accepted = int(self.state.num_accepted_steps)
        return self.accepted > before

    def halve(self, times: int) -> None:
        """Halve the step that is asked for."""
        for _ in range(times):
            self.tell(np.inf, np.zeros(self.x.shape))

    def promised(self) -> float:
        """Return by how much the asked step would decrease a linear function."""
        return -float(self.state.f_info.grad @ (self.state.y_eval - self.x))

    def decrement(self) -> float:
        """Return gᵀBg at the accepted point, B the inverse Hessian by BFGS: twice the decrease to expect."""
        info = self.state.f_info
        return float(info.grad @ info.hessian_inv.mv(info.grad))


def _told(y: Any, told: Any) -> Any:
    """Return a function with the told value and gradient at ``y``."""
    import jax
    import jax.numpy as jnp

    value, gradient = told
    return value + jnp.vdot(gradient, y - jax.lax.stop_gradient(y)), None


def _bfgs_step(solver: Any, x: Any, told: Any, state: Any) -> Any:
    x, state, _ = solver.step(_told, x, told, {}, state, frozenset())
    return x, state
