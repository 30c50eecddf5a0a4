"""Running SAEM: blocks of compiled iterations, progress between them, and a fit at the end."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from hierax.data.sanitise import sanitise
from hierax.infer.fitting.loop import Blocks
from hierax.infer.fitting.outcome import Outcome, evaluated_fields, solver_error
from hierax.infer.fitting.progress import Progress
from hierax.infer.judgement.collapse import without_bound
from hierax.infer.judgement.verdict import not_arrived, unmoved
from hierax.infer.marginal.held_out import HeldOut
from hierax.infer.marginal.objective import Evaluated
from hierax.infer.marginal.session import Session
from hierax.infer.result import Result
from hierax.infer.saem.iteration import block, start
from hierax.infer.saem.left_out import left_out, stopped_by, subjects_without_density
from hierax.infer.saem.roles import Roles, find_roles, weights_are_aloof
from hierax.infer.saem.schedule import Phases
from hierax.infer.saem.state import Schedule, State
from hierax.program.density import Program
from hierax.program.identity import fingerprint
from hierax.program.priors import penalty
from hierax.program.read import cached

if TYPE_CHECKING:
    from hierax.infer.fitting.job import Job
    from hierax.infer.saem.saem import SAEM


def run_saem(job: Job, saem: SAEM) -> Outcome:
    """Fit by SAEM; see :class:`hierax.SAEM`."""
    began = time.perf_counter()
    saem.check(job.program, job.pop)
    session = job.session(saem.objective)
    run = _Run(job, saem, session)
    result = run.go()
    return _finish(run, result, time.perf_counter() - began)


class _Run(Blocks):
    """One run of SAEM: its state, its phases, and its history."""

    def __init__(self, job: Job, saem: SAEM, session: Session):
        super().__init__(job, saem)
        self.saem, self.session = saem, session
        if session.grids is not None:
            session.place(job.flat)
        self.roles = roles_of(job, session.pop)
        self.phases = Phases(saem, job.free & ~self.roles.weights)
        params = job.layout.params(job.flat)
        reference = _reference(job.program)(session.pop, params)
        self.state = start(
            saem, self.roles, jnp.asarray(job.flat), reference, saem.chains_for(job.pop), jax.random.key(job.seed)
        )
        self.watcher = job.watcher(saem.objective)
        self.best: Any = self.state
        self.rows: list[dict[str, Any]] = []
        self.flats = np.zeros((0, job.layout.size))
        self.compile_seconds = 0.0
        self.trouble = ""
        self.function = self._compiled()

    def _compiled(self) -> Any:
        job, roles = self.job, self.roles
        masks = tuple(mask.tobytes() for mask in (roles.prior, roles.shift, roles.rest, roles.weights))
        # The compiled function holds options and priors; the key has their values, so that equal ones share it.
        key = ("saem", fingerprint((self.saem, job.counted)), masks, roles.common, roles.aloof)

        def params_of(flat: Any) -> Any:
            return job.program.constrain(job.layout.unravel(flat))

        def extra(flat: Any, pop: Any) -> Any:
            return penalty(job.layout, job.counted, flat, pop)

        return cached(job.program, key, lambda: jax.jit(block(self.saem, job.program, roles, params_of, extra)))

    # -- what a checkpoint holds -----------------------------------------------------------------------------------

    def tree(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on, and the history."""
        history = pd.DataFrame(self.rows)
        out = {
            "state": self.state,
            "phases": self.phases.state(),
            "flats": self.flats,
            "history": {name: history[name].to_numpy(float) for name in _COLUMNS} if len(history) else _EMPTY,
        }
        return out if self.watcher is None else {**out, "held_out": self.watcher.state(), "best": self.best}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.state = jax.tree.map(jnp.asarray, saved["state"])
        self.phases.restore(saved["phases"])
        self.flats = np.asarray(saved["flats"])
        table = pd.DataFrame({name: np.asarray(values) for name, values in saved["history"].items()})
        self.rows = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
        if self.watcher is not None:
            self.watcher.restore(saved["held_out"])
            self.best = jax.tree.map(jnp.asarray, saved["best"])
        if self.session.grids is not None:
            self.session.place(np.asarray(self.state.flat), np.asarray(self.state.centre))

    def known(self) -> dict[str, Any]:
        """Return the estimate so far, and the moments of the random effects by the chains."""
        state = self.state if self.watcher is None else State(*self.best)
        averaged = self.watcher is None and len(self.flats)
        flat = self.phases.averaged(self.flats) if averaged else np.asarray(state.flat)
        centre = np.asarray(state.centre)
        return {"flat": flat, "moments": (centre, np.asarray(state.square) - centre[:, :, None] * centre[:, None, :])}

    # -- the loop --------------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether both phases are over, or held-out subjects no longer become more likely."""
        return self.phases.finished or (self.watcher is not None and self.watcher.enough)

    @property
    def broken(self) -> bool:
        """Whether the run cannot go on: a parameter is not finite, or the last block is useless (``trouble``)."""
        if not np.isfinite(self.state.flat).all():
            self.trouble = "a parameter is not a number"
        return bool(self.trouble)

    def _judge_block(self, before: Any, schedule: Schedule) -> None:
        """Note in ``trouble`` what makes the last block useless, if anything."""
        maximised = int((np.asarray(schedule.active) & (np.asarray(schedule.step) > 0)).sum())
        lost = subjects_without_density(self.state.chains.log_density, self.session.pop.subject_mask)
        skipped = np.asarray(self.state.skipped) - np.asarray(before)
        rows = np.flatnonzero(np.asarray(self.session.pop.subject_mask))
        self.trouble = stopped_by(skipped, maximised, lost[rows], self.session.pop.subject_ids)

    def advance(self, bar: Progress) -> None:
        """Run a block of iterations."""
        schedule = self.phases.next()
        before, phase, skipped = time.perf_counter(), self.phases.phase, np.asarray(self.state.skipped)
        design = jnp.asarray(self.roles.design)
        state, trace = self.function(self.state, Schedule(*map(jnp.asarray, schedule)), design, self.session.pop)
        state, trace = jax.block_until_ready((state, trace))
        seconds = time.perf_counter() - before
        if not self.rows:
            self.compile_seconds = seconds
        self.state = State(*state)
        self._judge_block(skipped, schedule)
        active = np.asarray(schedule.active)
        flats = np.asarray(trace.flat)
        self.phases.take(schedule, flats)
        self.flats = np.concatenate([self.flats, flats[active]])
        accepted, complete = np.asarray(trace.accepted), np.asarray(trace.complete)
        for index in np.flatnonzero(active):
            self.rows.append(
                {
                    "iteration": len(self.rows),
                    "smoothing": float(phase == "smoothing"),
                    "complete": float(complete[index]),
                    "seconds": seconds / max(int(active.sum()), 1),
                    **dict(zip(_ACCEPTED, map(float, accepted[index]), strict=True)),
                }
            )
        bar.tell(f"{phase}, complete log likelihood {complete[active][-1]:.2f}", int(active.sum()))
        if self.watcher is not None and self.watcher.look(np.asarray(self.state.flat)):
            self.best = self.state
        if self.session.grids is not None and not self.phases.finished:
            self.session.watch(np.asarray(self.state.flat), np.asarray(self.state.chains.eta[0]))


def _reference(program: Program) -> Any:
    """Return the compiled function of a population and parameters that gives the random effects to start from."""
    return cached(
        program,
        "reference",
        lambda: jax.jit(lambda pop, params: program.reference(sanitise(pop), params)),
    )


_ACCEPTED = ("accepted_population", "accepted_component", "accepted_block", "accepted_gradient")
_COLUMNS = ("iteration", "smoothing", "complete", "seconds", *_ACCEPTED)
_EMPTY: dict[str, np.ndarray] = {name: np.zeros(0) for name in _COLUMNS}


def roles_of(job: Job, pop: Any) -> Roles:
    """Return the roles of a job's free parameters; those whose prior is part of the objective have no closed form."""
    held = np.zeros(job.layout.size, bool)
    for name in job.counted:
        held[job.layout.slices[name]] = True
    roles = find_roles(job.program, pop, job.layout, job.flat, job.free & ~held)
    weights = job.layout.weights() & job.free
    aloof = weights_are_aloof(job.program, pop, job.layout, job.flat, weights)
    return dataclasses.replace(roles, rest=roles.rest | (held & job.free), weights=weights, aloof=aloof)


def _finish(run: _Run, result: Result, seconds: float) -> Outcome:
    """Return the outcome: modes and log likelihood at the estimate by the objective."""
    session, watcher = run.session, run.watcher
    known = run.known()
    flat, (centre, _) = known["flat"], known["moments"]
    if session.grids is not None:
        session.place(flat, centre)
    out = session.value(flat, centre)
    if session.grids is not None:
        session.look_around(flat, out)
    result, why = _verdict(run, result, flat, out)
    outcome = Outcome(
        **evaluated_fields(session, flat, out),
        penalty=session.penalty(flat)[0],
        result=result,
        why=why,
        history=pd.DataFrame(),
        timing={
            "compile": run.compile_seconds,
            "search": float(sum(row["seconds"] for row in run.rows)),
            "evaluations": len(run.rows),
            "total": seconds,
        },
        solver_error=solver_error(session),
        held_out=None if watcher is None else np.array(watcher.rows),
        extras={"moments": known["moments"]},
    )
    outcome.history = _history(run, outcome.ofv)
    return outcome


def _verdict(run: _Run, result: Result, flat: np.ndarray, out: Evaluated) -> tuple[Result, str]:
    """Return how the run ended, and why."""
    job, watcher = run.job, run.watcher
    session, free = run.session, job.free & ~run.roles.weights
    if result is not Result.converged:
        unbounded = without_bound(session, job.flat, flat, out, free) if run.trouble else None
        return unbounded or (result, run.trouble or result.meaning)
    stopped_early = watcher is not None and watcher.enough
    variances = job.free & run.roles.prior
    found = unmoved(job.flat, flat, free, job.layout.names()) or not_arrived(
        session, job.flat, flat, out, free, variances, stopped_early=stopped_early
    )
    if found is not None:
        return found
    why = HeldOut.WHY if stopped_early else "the phases are complete"
    stuck = ~np.isfinite(np.asarray(run.state.chains.log_density))[:, np.asarray(run.session.pop.subject_mask)]
    return result, why + left_out(np.asarray(run.state.skipped), len(run.rows), stuck)


def _history(run: _Run, ofv: float) -> pd.DataFrame:
    """Return one row per iteration: phase, complete log likelihood, acceptance, and the parameters."""
    frame = pd.DataFrame(run.rows)
    if not len(frame):
        return pd.DataFrame(columns=["start", "iteration", "phase", "ofv", "gradient", "seconds"])
    frame["iteration"] = frame["iteration"].astype(int)
    smoothing = frame.pop("smoothing") > 0
    frame.insert(1, "phase", np.where(smoothing, "smoothing", "exploratory"))
    frame.insert(0, "start", 0)
    # The marginal likelihood is computed at the end of the run alone.
    frame["ofv"] = np.where(np.arange(len(frame)) == len(frame) - 1, ofv, np.nan)
    frame["gradient"] = np.nan
    names = run.job.layout.names()
    shown = np.flatnonzero(run.job.free & ~run.roles.weights)
    natural = run.job.layout.natural(run.flats)
    return pd.concat([frame, pd.DataFrame(natural[:, shown], columns=[names[i] for i in shown])], axis=1)
