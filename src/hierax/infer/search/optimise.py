"""The search over population parameters, by quasi-Newton steps of optimistix."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hierax.infer.result import Result
from hierax.infer.search.approach import come_nearer, is_far, look_back, wake
from hierax.infer.search.bfgs import HALVINGS, AskTell
from hierax.infer.search.certify import polish
from hierax.infer.search.options import QuasiNewton, Starting
from hierax.infer.search.outcome import Enough, Search
from hierax.infer.search.scaling import Point, Ranges, at_boundary, idle, is_finite, scaling_within, standardised
from hierax.infer.search.second_look import (
    better_start,
    leave_start,
    lost,
    lower_inside,
    lower_nearby,
    still,
    worth_leaving,
)
from hierax.infer.search.trail import Trail, falls_on
from hierax.infer.search.words import not_felt, not_finite, without_bound

Evaluate = Callable[[np.ndarray, Any], Point]
# After this many refused steps in a row the subjects' modes are sought anew, because they may be the reason.
_REFUSALS = 6
# How often, at most, BFGS is begun anew from the best point.
_RESTARTS = 4
# Up to this many changes of the problem do not count as restarts. The problem changes where `watch` changes the
# objective, and where a parameter reaches the end of its range.
_FREE_CHANGES = 20
# After this many accepted steps in a row that do not change the objective the search ends.
_STILL = 4
# After this many points in a row at which nearly all scores point the same way BFGS stops, because it cannot learn a
# curvature from them.
_COLLINEAR = 4
# By how much −log likelihood must be lower at a place decades away for the search to go there: by a lot at the start,
# where a place that is a little lower may lie in another valley, and by next to nothing at the end.
_A_LOT, _A_LITTLE = 0.1, 1e-4
# Where BFGS has come to rest, the point is an optimum if the standardised gradient is below this multiple of gtol.
_SMALL = 100
# By default a search may look for a better start.
_AS_GIVEN = Starting()


def minimise(
    evaluate: Evaluate,
    x: np.ndarray,
    state: Any,
    options: QuasiNewton,
    report: Callable[[dict[str, float]], None],
    ranges: Ranges | None = None,
    anew: Callable[[np.ndarray, Any], Any] | None = None,
    watch: Callable[[np.ndarray, Any], bool] | None = None,
    names: Sequence[str] | None = None,
    starting: Starting = _AS_GIVEN,
) -> Search:
    """Minimise a smooth objective from ``x``.

    ``evaluate(x, state)`` returns a :class:`Point`; its ``state`` (the modes) of the last accepted point is handed
    to the next evaluation as a warm start. ``max_step`` holds for the bounded entries of ``ranges``.
    ``anew(x, state)`` returns a better state than ``state``, or None: it is called where a search ends, and where many
    steps in a row are refused. ``watch(x, state)`` is called at every accepted point, and returns whether it has
    changed the objective (by placing the grid of an ODE anew); it raises :class:`Enough` to end the search. ``names``
    are those of the entries, for messages. A search that has lost its way starts once more from elsewhere, as far as
    ``starting`` permits. Interrupting (Ctrl-C) returns the best point so far.
    """
    none = np.zeros(len(x), bool)
    run = _Run(evaluate, options, report, ranges or Ranges(none, none), anew, watch, names, starting)
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
        ranges: Ranges,
        anew: Callable[[np.ndarray, Any], Any] | None,
        watch: Callable[[np.ndarray, Any], bool] | None = None,
        names: Sequence[str] | None = None,
        starting: Starting = _AS_GIVEN,
    ):
        self.watch, self.changed = watch, 0
        self.evaluate, self.options, self.report, self.anew = evaluate, options, report, anew
        self.bounded, self.ranges = ranges.bounded, ranges
        size = self.bounded.size
        self.names = names or [f"parameter {index}" for index in range(size)]
        self.trail = Trail(self.bounded)
        # Parameters that do not change the objective even decades away, and those along which such places were tried.
        self.unfelt = np.zeros(size, bool)
        self.scanned, self.start = np.zeros(size, bool), np.zeros(size)
        # Whether the end of the search deserves a second look because the start was far off, whether the start was far
        # off, and whether a second start is still allowed.
        self.doubtful, self.far_off, self.second_start = False, False, not starting.once
        self.starting = starting
        # How often the objective was looked at around the end of the search.
        self.looks = 0
        self.first: Point | None = None
        self.best: Point | None = None
        self.best_x = np.zeros(0)
        self.history: list[dict[str, float]] = []
        self.started = time.perf_counter()

    def go(self, x: np.ndarray, state: Any) -> tuple[Result, str]:
        """Search by damped steps from a start far off, then by BFGS, which is begun anew where it finds no decrease."""
        point = self.see(x, state, 0.0)
        if x.size == 0 and is_finite(point):
            return Result.converged, "nothing is free to vary"
        if not is_finite(point):
            why = not_finite(point, self.names)
            if self.starting.stay or not leave_start(self, point, why):
                return Result.non_finite, why
        self.start = self.best_x
        assert self.best is not None
        self.first = point = self.best
        self.far_off = is_far(point) or bool(idle(point, self.bounded).any())
        # A search that may start only once takes no second look either, because it is a part of another one.
        self.doubtful = self.far_off and self.second_start
        self.found_lower(_A_LOT)
        attempt = -1
        while attempt < _RESTARTS:
            attempt += 1
            if self.norm() >= self.options.gtol:
                come_nearer(self, self.options.max_step)
            before = self.best.value if self.best is not None else np.inf
            changes = self.changed
            done = self.descend()
            if self.changed > changes:
                attempt -= self.changed <= _FREE_CHANGES
                continue
            # Where the search has ended, modes that were followed for long may no longer be the best ones.
            if (self.refresh() or self.found_lower()) and attempt < _RESTARTS:
                continue
            if done is None:
                assert self.best is not None
                if attempt < _RESTARTS and not (attempt and before - self.best.value <= 1e-9 * (1 + abs(before))):
                    continue
                done = self.judged()
            inside = done[0] is Result.converged and self.lower_elsewhere()
            if not inside and not self.lower_from_another_start(done[0]) and not lower_nearby(self, done[0], _A_LITTLE):
                return self.moved(*done)
            # The search goes on from the lower place, with all its restarts.
            attempt = -1
        return self.moved(*self.judged())

    def moved(self, result: Result, why: str) -> tuple[Result, str]:
        """Return how the search ended; a parameter that does not change the objective was not estimated."""
        unfelt = self.unfelt | still(self, self.start)
        if result is not Result.converged or not unfelt.any():
            return result, why
        return Result.did_not_move, not_felt(self.names, unfelt)

    def judged(self) -> tuple[Result, str]:
        """Return whether the place where no step helps any more is an optimum, by Newton steps where it is unclear."""
        small = _SMALL * self.options.gtol
        if self.norm() >= small:
            good, decrement = polish(self, small, self.at_boundary(), self.options.max_step)
            if good:
                why = f"the distance to the optimum is {decrement:.1e} standard errors, by the Hessian"
                return Result.converged, why
        # Newton steps may have made the gradient small.
        if self.norm() < small:
            return Result.converged, f"no step decreases the objective; standardised gradient {self.norm():.1e}"
        return Result.no_progress, f"{Result.no_progress.meaning} (standardised gradient {self.norm():.1e})"

    def found_lower(self, clearly: float = _A_LITTLE) -> bool:
        """Look for a lower objective along parameters that do not change it here; return whether there is one.

        A parameter that has descended to the end of its range is moved back inwards only.
        """
        assert self.best is not None
        # Far out, matrices are singular up to rounding errors, so that the objective there means nothing.
        here = idle(self.best, self.bounded & ~self.ranges.matrices)
        outward = (self.best_x - self.start) * np.sign(self.best_x) > 1
        before = self.best.value
        ended = here & outward & at_boundary(self.best, self.ranges, self.best_x)
        self.unfelt = wake(self, here & ~ended, clearly)
        look_back(self, ended, clearly)
        # A parameter along which nothing lower was found counts as being at the end of its range, as long as it does
        # not change the objective.
        self.scanned = here
        return self.best.value < before

    def lower_elsewhere(self) -> bool:
        """Return whether, after a doubtful start, the objective is lower inside the range of a parameter at its end."""
        doubtful, self.doubtful = self.doubtful, False
        return doubtful and lower_inside(self, np.flatnonzero(self.at_boundary() & ~self.ranges.matrices), _A_LITTLE)

    def single(self) -> np.ndarray:
        """Return the indices of the parameters that can be interpreted one by one."""
        return np.flatnonzero(np.broadcast_to(~np.asarray(self.ranges.joint), self.bounded.shape))

    def lower_from_another_start(self, result: Result) -> bool:
        """Search again from a better start if the search has lost its way; return whether to go on searching."""
        first_time, self.second_start = self.second_start, False
        assert self.best is not None
        assert self.first is not None
        stuck = result is Result.no_progress
        first_time = first_time and (stuck or result is Result.converged)
        if not first_time or not lost(self, self.first, self.start, self.at_boundary(), stuck):
            return False
        x, point = better_start(self, self.start, self.first, self.single())
        if x is self.start:
            return False
        options = dataclasses.replace(self.options, max_iter=max(self.options.max_iter - len(self.history), 1))
        begun, passed = len(self.history), time.perf_counter() - self.started
        found = minimise(
            self.evaluate, x, point.state, options, self.report, self.ranges, self.anew, self.watch, self.names,
            Starting(once=True),
        )  # fmt: skip
        self.history += [
            {**row, "iteration": begun + row["iteration"], "seconds": passed + row["seconds"]} for row in found.history
        ]
        if found.result is Result.interrupted:
            return self.interrupted_elsewhere(found, result)
        # Both ends are evaluated by the present objective, because `watch` may have changed it on the way.
        here, there = self.look(self.best_x, self.best.state), self.look(found.x, found.point.state)
        lower = there.value < here.value - worth_leaving(self.first, found.result, result, _A_LITTLE)
        if lower:
            self.see(found.x, found.point.state, 0.0, replace=True)
        elif self.watch is not None:
            # The objective may have changed on the way, so that the end of the first search is judged anew.
            self.see(self.best_x, self.best.state, 0.0, replace=True)
            return True
        return lower

    def interrupted_elsewhere(self, found: Search, result: Result) -> bool:
        """Handle Ctrl-C in the second search: keep the better point of the two searches, and end."""
        assert self.best is not None
        if found.point.value < self.best.value:
            self.see(found.x, found.point.state, 0.0, replace=True)
        elif result is Result.converged:
            return False
        raise KeyboardInterrupt

    def profile(self, x: np.ndarray, entry: int, most: int) -> Search:
        """Search over all entries but one, which keeps its value in ``x``; stop after ``most`` evaluations."""
        keep = np.arange(x.size) != entry

        def evaluate(others: np.ndarray, state: Any) -> Point:
            point = self.evaluate(np.insert(others, entry, x[entry]), state)
            scores = None if point.scores is None else point.scores[keep]
            return point._replace(gradient=point.gradient[keep], scores=scores)

        assert self.best is not None
        options = dataclasses.replace(self.options, max_iter=min(self.options.max_iter, most))
        ranges = Ranges(*(np.broadcast_to(kind, keep.shape)[keep] for kind in self.ranges))
        alone = Starting(once=True, stay=True)
        return minimise(evaluate, x[keep], self.best.state, options, lambda row: None, ranges, starting=alone)

    def at_boundary(self) -> np.ndarray:
        """Return which parameters have nothing left to gain on the way to the end of their range."""
        assert self.best is not None
        there = at_boundary(self.best, self.ranges, self.best_x)
        # A parameter that would still gain by moving outwards is not held.
        inward = self.best.gradient * np.sign(self.best_x) >= 0
        return there | (self.scanned & inward & idle(self.best, self.bounded))

    def norm(self) -> float:
        """Return the standardised gradient of the entries that are not at the end of their range."""
        assert self.best is not None
        return standardised(self.best, self.at_boundary())

    def descend(self) -> tuple[Result, str] | None:
        """Run BFGS from the best point; return how it ended, or None where it has to be begun anew."""
        assert self.best is not None
        if self.norm() < self.options.gtol:
            return Result.converged, "the standardised gradient is below gtol"
        held = self.at_boundary()
        origin, scale = self.best_x, scaling_within(self.best, ~held)
        bfgs = AskTell(np.zeros_like(origin))
        bfgs.tell(self.best.value, scale.T @ self.best.gradient)
        refused, still, ahead, suspected, astray = 0, 0, 0, False, 0
        while len(self.history) < self.options.max_iter:
            if not refused:
                # A step is halved in advance, once less often than the last one had to be, because it will most likely
                # be too long as well.
                bfgs.halve(ahead)
            step = bfgs.ask_within(lambda step: self.far_from_best(origin + scale @ step), self.options.max_step)
            promised = bfgs.promised()
            previous = self.best.value
            point = self.see(origin + scale @ step, self.best.state, float(np.linalg.norm(step)))
            accepted = bfgs.tell(point.value, scale.T @ point.gradient)
            if accepted:
                if self.watch is not None and self.watch(self.best_x, self.best.state):
                    self.changed += 1
                    self.see(self.best_x, self.best.state, 0.0, replace=True)
                    return None
                if self.norm() < self.options.gtol:
                    return Result.converged, "the standardised gradient is below gtol"
                unbounded = self.trail.unbounded()
                if unbounded.any() and falls_on(self, unbounded, _A_LOT):
                    return Result.degenerate, without_bound(self.names, unbounded)
                astray = astray + 1 if is_far(self.best) else 0
                if astray >= _COLLINEAR:
                    return None
                if (self.at_boundary() != held).any():
                    # BFGS begins anew without the parameters at the end of their range: they would only run on, and
                    # hold the others up.
                    self.changed += 1
                    return None
                # With few subjects the scores say little about the curvature, but BFGS knows it after some steps.
                if bfgs.accepted > 2 * origin.size and bfgs.decrement() < self.options.gtol**2:
                    return self.ended("the expected further decrease of the objective is below gtol²")
                ahead = max(ahead + refused - 1, 0)
                refused, suspected = 0, False
                still = still + 1 if previous - self.best.value <= 1e-11 * (1 + abs(previous)) else 0
                if still >= _STILL:
                    return self.ended("the objective no longer changes")
            else:
                refused += 1
                if point.value - previous > promised:
                    # Where the objective rises by more than it was to fall, the parabola through both points and the
                    # slope has its minimum within a quarter of the step.
                    bfgs.halve(1)
                    refused += 1
            if refused >= _REFUSALS and not suspected:
                suspected = True
                if self.refresh():
                    return None
            if refused > HALVINGS:
                return None
        return Result.max_iterations, Result.max_iterations.meaning

    def ended(self, why: str) -> tuple[Result, str] | None:
        """Return that the search has converged if the gradient is small too, or None where it has only got stuck."""
        assert self.best is not None
        if self.best.scores is not None and self.norm() >= _SMALL * self.options.gtol:
            return None
        return Result.converged, why

    def refresh(self) -> bool:
        """Seek the modes at the best point anew; return whether better ones were found.

        The objective may be higher with better modes; the best point is replaced all the same.
        """
        assert self.best is not None
        state = None if self.anew is None else self.anew(self.best_x, self.best.state)
        if state is None:
            return False
        self.see(self.best_x, state, 0.0, replace=True)
        return True

    def far_from_best(self, x: np.ndarray) -> float:
        """Return the largest distance of a bounded parameter from its value at the best point."""
        return float(np.abs(x - self.best_x)[self.bounded].max(initial=0.0))

    def see(self, x: np.ndarray, state: Any, step: float, *, replace: bool = False) -> Point:
        """Evaluate, remember the best point (or ``replace`` it), and report."""
        point = self.look(x, state)
        if replace or self.best is None or point.value < self.best.value:
            self.best, self.best_x = point, x
            self.trail.add(x, point.value)
        ended = at_boundary(point, self.ranges, x) if is_finite(point) else None
        row = {
            "iteration": float(len(self.history)),
            "value": point.value - point.penalty,
            "gradient": np.nan if ended is None else standardised(point, ended),
            "step": step,
            "seconds": time.perf_counter() - self.started,
        }
        self.history.append(row)
        self.report(row)
        return point

    def look(self, x: np.ndarray, state: Any) -> Point:
        """Evaluate, and remember nothing; a point with numbers that are not finite gets the value infinity."""
        if self.history and (np.abs(x) > self.ranges.limits).any():
            assert self.best is not None
            return self.best._replace(value=np.inf, gradient=np.zeros_like(x))
        point = self.evaluate(x, state)
        if not self.history or is_finite(point):
            # The first point is kept as it is, so that a message can say what is not finite there.
            return point
        return point._replace(value=np.inf, gradient=np.zeros_like(x))
