"""Fitting by maximising an approximation of the marginal likelihood: starts, refinements, and the result."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hierax.infer.fitting.interrupted import known_of
from hierax.infer.fitting.outcome import Outcome, evaluated_fields, gaussian_constant, solver_error, with_modes
from hierax.infer.fitting.progress import Progress
from hierax.infer.judgement.collapse import without_bound
from hierax.infer.judgement.inert import absent_entries, inert_entries, nothing_to_estimate
from hierax.infer.marginal.estimator import Estimator
from hierax.infer.marginal.objective import Evaluated
from hierax.infer.marginal.session import Session, placed
from hierax.infer.result import Result
from hierax.infer.search.outcome import Search
from hierax.infer.search.recorder import Recorder

if TYPE_CHECKING:
    from hierax.infer.fitting.job import Job

# Further starts lie within this distance of the program's own start in unconstrained space: a factor of e, up or down,
# for a positive parameter.
SPREAD = 1.0
# The columns of a fit's history.
_HISTORY = ["start", "iteration", "ofv", "gradient", "step", "seconds"]
# How often, at most, a search goes on with shorter ODE steps.
_REFINEMENTS = 3
# Says of an interrupted fit that its search had already ended.
_AT_THE_END = "after the search had ended, but before its result was checked"


def maximise(job: Job, estimator: Estimator) -> Outcome:
    """Maximise an approximation of the marginal likelihood."""
    began = time.perf_counter()
    places = job.layout
    session = job.session(estimator)
    flat, free = job.flat, job.free
    held, modes = inert_entries(session, flat, free)
    absent = absent_entries(session, flat, held)
    free = free & ~held
    session.recorder = recorder = Recorder(job.checkpoint)
    session.watcher = watcher = job.watcher(estimator)
    try:
        with (
            Progress(job.progress, estimator.label, gaussian_constant(session, flat)) as bar,
            job.checkpoint.watching(),
        ):
            bar.begin(places.params(flat))
            search, history, flat = _multi_start(session, flat, free, job.starts, job.seed, bar, modes)
            try:
                search, history, flat, final = _refined(session, search, history, flat, free, bar)
                if watcher is not None and watcher.best is not None:
                    search, flat = _best_held_out(session, search, watcher.best, free), watcher.best
                    final = _finish(session, flat, search)
                search = _collapsed(session, search, job.flat, flat, final, free)
            except KeyboardInterrupt:
                # The search's result is kept, although the computations at its end were interrupted.
                final = known_of(session, flat, search.point.state)
                search = search._replace(result=Result.interrupted, why=f"{Result.interrupted.meaning} {_AT_THE_END}")
    finally:
        recorder.save()
        session.recorder = session.watcher = None
    names = np.array(places.names())
    if search.result is Result.converged and absent.any():
        result, why = nothing_to_estimate(list(names[absent]))
        search = search._replace(result=result, why=why)
    return Outcome(
        **evaluated_fields(session, flat, final),
        penalty=session.penalty(flat)[0],
        free=free,
        gradient=placed(np.zeros(free.size), free, search.point.gradient),
        result=search.result,
        why=search.why,
        history=history,
        held=list(map(str, names[held])),
        timing={
            "compile": session.compile_seconds,
            "search": float(history["seconds"].sum()) if len(history) else 0.0,
            "evaluations": session.evaluations,
            "total": time.perf_counter() - began,
            **_grid_timing(session),
        },
        solver_error=solver_error(session),
        held_out=None if watcher is None else np.array(watcher.rows),
    )


def _collapsed(
    session: Session, search: Search, start: np.ndarray, flat: np.ndarray, final: Evaluated, free: np.ndarray
) -> Search:
    """Return a search that found no optimum, with the result ``degenerate`` where the likelihood has none."""
    if search.result not in (Result.no_progress, Result.max_iterations):
        return search
    session.recorder = session.watcher = None
    found = without_bound(session, start, flat, final, free)
    return search if found is None else search._replace(result=found[0], why=found[1])


def _best_held_out(session: Session, search: Search, best: np.ndarray, free: np.ndarray) -> Search:
    """Return the search with its end moved to where the held-out subjects were most likely."""
    return search._replace(x=best[free], point=session.point(best, free, search.point.state))


def _multi_start(
    session: Session, flat: np.ndarray, free: np.ndarray, starts: int, seed: int, bar: Progress, modes: Any
) -> tuple[Search, pd.DataFrame, np.ndarray]:
    """Search from every start; return the best search, all histories, and the flat vector where the best one ended."""
    rng = np.random.default_rng(seed)
    own = session.layout.start(None)
    best: Search | None = None
    constant = gaussian_constant(session, flat)
    frames = []
    for number in range(starts):
        begin = flat.copy()
        if number:
            begin[free] = own[free] + rng.uniform(-SPREAD, SPREAD, int(free.sum()))
        try:
            known = None if number else modes
            search = session.search(begin, free, lambda row, number=number: bar.show(number, row), known)
        except KeyboardInterrupt:
            if best is None:
                raise
            search = best._replace(result=Result.interrupted, history=[])
        frames.append(_rows(search, number, constant))
        if best is None or _rank(search) < _rank(best):
            best = search
        if search.result is Result.interrupted:
            break
    assert best is not None
    if search.result is Result.interrupted:
        best = best._replace(result=Result.interrupted, why=Result.interrupted.meaning)
    return best, pd.concat(frames, ignore_index=True).astype({"iteration": int}), placed(flat, free, best.x)


def _rows(search: Search, number: int, constant: float) -> pd.DataFrame:
    """Return the history of one search with a row for each evaluation."""
    columns = ["iteration", "value", "gradient", "step", "seconds"]
    frame = pd.DataFrame(search.history, columns=columns, dtype=float).assign(start=number)
    frame["ofv"] = 2 * frame["value"] - constant
    frame["seconds"] = frame["seconds"].diff().fillna(frame["seconds"])
    return frame[_HISTORY]


def _refined(
    session: Session, search: Search, history: pd.DataFrame, flat: np.ndarray, free: np.ndarray, bar: Progress
) -> tuple[Search, pd.DataFrame, np.ndarray, Evaluated]:
    """Check the ODE steps where the search has ended; if they were too long, search on with shorter ones."""
    final = _finish(session, flat, search)
    for _ in range(_REFINEMENTS):
        if search.result is Result.interrupted or session.confirm(flat, final):
            break
        passed = len(search.history)
        search = session.search(flat, free, lambda row: bar.show(0, row), final.eta, once=True)
        more = _rows(search, 0, gaussian_constant(session, flat))
        more["iteration"] += passed
        history = pd.concat([history, more], ignore_index=True).astype({"iteration": int})
        flat = placed(flat, free, search.x)
        final = _finish(session, flat, search)
    else:
        if session.grids is not None:
            # The error that is reported is that of the grids on which the last search ran.
            session.look_around(flat, final)
    return search, history, flat, final


def _rank(search: Search) -> tuple[bool, float]:
    value = search.point.value
    return (not np.isfinite(value), value)


def _finish(session: Session, flat: np.ndarray, search: Search) -> Evaluated:
    """Evaluate once more at the end, so that modes and values belong to the returned parameters."""
    return with_modes(session, flat, session.evaluate(flat, search.point.state))


def _grid_timing(session: Session) -> dict[str, float]:
    """Return how often ODE grids were placed, and for how many sizes of them the objective was compiled."""
    grids = session.grids
    return {} if grids is None else {"grid placings": grids.placings, "grid sizes": len(grids.sizes)}
