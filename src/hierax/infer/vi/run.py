"""Running variational inference: blocks of compiled steps, mini-batches, and a fit at the end."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from hierax.data.sanitise import sanitise
from hierax.infer.blocks import draw_moments, inverse_blocks
from hierax.infer.fitting.loop import Blocks
from hierax.infer.fitting.outcome import Outcome, sampled_fields, solver_error
from hierax.infer.fitting.progress import Progress
from hierax.infer.fitting.samples import Samples
from hierax.infer.judgement.optimum import not_optimal
from hierax.infer.judgement.verdict import not_arrived, unmoved
from hierax.infer.marginal.held_out import HeldOut
from hierax.infer.marginal.session import Session
from hierax.infer.pareto import HIGH_K, pareto_k
from hierax.infer.result import Result
from hierax.infer.run.own_number import number_of, own_key
from hierax.infer.saem.roles import find_roles
from hierax.infer.vi import linked
from hierax.infer.vi.bound import BLOCK, State, begin, block, moments, place
from hierax.infer.vi.course import Course
from hierax.infer.vi.guide import Normal
from hierax.infer.vi.guide_weights import guide_draws, guide_log_weights
from hierax.infer.vi.variational import Variational, setting_of
from hierax.program.identity import fingerprint
from hierax.program.read import cached

if TYPE_CHECKING:
    from hierax.infer.fitting.job import Job
    from hierax.infer.vi.vi import VI

# How many draws of the guide a fit keeps. It keeps fewer if they would hold more numbers than the limit below.
_DRAWS = 2000
# The limit: how many numbers the kept draws may hold in all. However large each draw is, a fit keeps at least a few.
_NUMBERS, _FEWEST = 20_000_000, 200
# How many draws of the population parameters judge their guide by importance weights, and over how many draws of the
# random effects each of these weights is averaged.
_JUDGED, _REPETITIONS = 2000, 10
# The bound that is reported is the mean over this many last steps.
_REPORTED_STEPS = 300
# The weights of flows of random effects learn at this multiple of the learning rate, because a step of theirs can do
# much harm.
_FLOW_PACE = 0.25
# The centre of the population parameters' guide counts as no optimum if the log posterior density is higher by more
# than this where one parameter is decades away. The centre is a mean, so that a smaller gain is no sign.
_CLEARLY_OF_POSTERIORS = 2.0

_NO_GRADIENT = (
    "the bound is finite, but its gradient is not. Usually a prediction is 0 at a record without an observation: the "
    "slope of log(0) is infinite even at a record that does not enter the likelihood. Write jnp.log(jnp.where(conc > "
    "0, conc, 1.0))"
)
_NO_BOUND = "the bound is not finite: the density of some subject is not, whatever its random effects are"


def run_vi(job: Job, vi: VI) -> Outcome:
    """Fit by variational inference; see :class:`hierax.VI`."""
    began = time.perf_counter()
    vi.check(job.program, job.pop)
    if vi.population != "point":
        job.counted = dict(job.priors)
        job.need_priors("VI with a guide of the population parameters")
    run = _Run(job, vi, job.session(vi.objective))
    result = run.go()
    return _finish(run, result, time.perf_counter() - began)


class _Run(Blocks):
    """One run of VI: its state, its learning rates, and its history."""

    def __init__(self, job: Job, vi: VI, session: Session):
        super().__init__(job, vi)
        self.vi, self.session = vi, session
        self.course = Course(vi, network=bool((job.layout.weights() & job.free).any()))
        self.watcher = job.watcher(vi.objective)
        out = session.value(job.flat)
        # Guides begin at the modes. A subject whose mode is not finite begins at 0: if its density is not finite there
        # either, the bound shows it.
        mode = np.nan_to_num(np.asarray(out.eta))
        root = _roots(inverse_blocks(np.asarray(out.hessian)))
        key, guide_key = jax.random.split(jax.random.key(job.seed))
        start = jax.jit(lambda pop, mode, root: vi.guide.begin(guide_key, sanitise(pop), mode, root))
        guide = start(session.pop, jnp.asarray(mode), jnp.asarray(root))
        links = None
        if vi.population != "point" and linked.linkable(vi.guide, guide, sanitise(session.pop)):
            links = np.flatnonzero(~job.layout.weights()[job.free])
            guide = start(session.pop, *self._stand_ins(mode, np.asarray(out.hessian)))
            guide = linked.begin(vi.guide, guide, mode.shape[1], len(links))
        self.roles = find_roles(job.program, session.pop, job.layout, job.flat, job.free)
        self.design = jnp.asarray(self.roles.design)
        pace = np.where(job.layout.weights() & bool(job.program.flows), _FLOW_PACE, 1.0)[job.free]
        self.setting = setting_of(session, vi, job.free, self.roles.shift, pace, links)
        self.state = begin(self.setting, jnp.asarray(job.flat), guide, key)
        self.known_as = known = ("vi", fingerprint((vi, job.counted)), job.free.tobytes(), self.roles.shift.tobytes())
        self.function, self.spread, _ = cached(
            job.program,
            known,
            lambda: (
                jax.jit(block(self.setting)),
                jax.jit(partial(moments, self.setting), static_argnames="refined"),
                (self.setting, job.counted),
            ),
        )
        self.seconds: list[float] = []
        self.stuck, self.skipped = False, 0
        self.best = self.state

    def _stand_ins(self, mode: np.ndarray, hessian: np.ndarray) -> Any:
        """Return location and root of a Gaussian that stands in for each subject's likelihood."""
        program = self.job.program

        def run(pop: Any, params: Any, mode: Any, hessian: Any) -> Any:
            clean = sanitise(pop)
            mean = program.reference(clean, params)
            root = program.prior_root(clean, params, mean)
            identity = jnp.einsum("nij,nkj->nik", root, root)
            good = jnp.isfinite(hessian).all((-1, -2))[:, None, None]
            # A subject whose Hessian is not finite begins at its prior.
            return linked.stand_ins(mode, jnp.where(good, hessian, jnp.linalg.inv(identity)), mean, root)

        params = program.constrain(self.job.layout.unravel(jnp.asarray(self.job.flat)))
        function = cached(program, "stand ins", lambda: jax.jit(run))
        return function(self.session.pop, params, jnp.asarray(mode), jnp.asarray(hessian))

    def tree(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        out = {
            "state": self.state,
            "course": self.course.state(),
            "seconds": np.array(self.seconds),
            "skipped": np.array(self.skipped),
        }
        return out if self.watcher is None else {**out, "held_out": self.watcher.state(), "best": self.best}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.state = jax.tree.map(jnp.asarray, saved["state"])
        self.course.restore(saved["course"])
        self.seconds, self.skipped = saved["seconds"].tolist(), int(saved["skipped"])
        if self.watcher is not None:
            self.watcher.restore(saved["held_out"])
            self.best = jax.tree.map(jnp.asarray, saved["best"])

    def known(self) -> dict[str, Any]:
        """Return the population parameters as they are now."""
        return {"flat": np.asarray(self.flat())}

    @property
    def finished(self) -> bool:
        """Whether the learning rate has fallen all the way, or held-out subjects no longer become more likely."""
        return self.course.finished or (self.watcher is not None and self.watcher.enough)

    @property
    def broken(self) -> bool:
        """Whether a whole block had no finite bound or gradient."""
        return self.stuck or not np.isfinite(self.course.bounds[-BLOCK:]).any()

    def advance(self, bar: Progress) -> None:
        """Run a block of steps."""
        before, course = time.perf_counter(), self.course
        rows = self._rows()
        flat = jnp.asarray(self.job.flat)
        rates = jnp.asarray(course.rates())
        out = self.function(self.state, rates, rows, flat, self.design, self.session.pop)
        state, bounds, good = jax.block_until_ready(out)
        self.stuck = bool(self.job.free.any()) and not np.asarray(good).any()
        self.skipped += int((~np.asarray(good)).sum()) if self.job.free.any() else 0
        self.state = State(*state)
        course.take(np.asarray(bounds))
        self.seconds.append(time.perf_counter() - before)
        if self.watcher is not None and self.watcher.look(np.asarray(self.flat())):
            self.best = self.state
        bar.tell(f"bound {np.mean(course.bounds[-BLOCK:]):.3f}", BLOCK)
        if self.session.grids is not None and not course.finished:
            self.session.watch(np.asarray(self.flat()), self.moments(refined=False)[0])

    def _rows(self) -> Any:
        """Return the rows of the subjects in each step of the next block, (step, batch); no columns mean all subjects.

        Mini-batches are cut from random orders of all subjects that are not padding, one order after another, so that
        all of them are used about equally often.
        """
        real = np.flatnonzero(np.asarray(self.job.pop.subject_mask))
        batch = self.vi.batch
        if batch is None or batch >= len(real):
            return jnp.zeros((BLOCK, 0), int)
        # A block's rows depend on the seed and the block alone, so that a resumed run draws the same.
        rng = np.random.default_rng([self.job.seed, self.course.done])
        passes = -(-BLOCK * batch // len(real)) + 1
        order = np.concatenate([rng.permutation(real) for _ in range(passes)])
        # A step at the seam between two orders may hold a subject twice. Its subjects are then all drawn anew.
        rows = order[: BLOCK * batch].reshape(BLOCK, batch)
        for row in rows:
            if len(np.unique(row)) < batch:
                row[:] = rng.choice(real, batch, replace=False)
        return jnp.asarray(rows)

    def moments(self, *, refined: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and covariance of every subject's random effects by its guide, refined or as trained."""
        start, key = jnp.asarray(self.job.flat), jax.random.key(self.job.seed)
        found = self.spread(self.state.guide, self.flat(), start, self.design, self.session.pop, key, refined=refined)
        return np.asarray(found[0]), np.asarray(found[1])

    def draws(self) -> Samples:
        """Return independent draws of the guide: of the population parameters, and of random effects given each."""
        job, size = self.job, self.session.pop.n_subjects * max(len(self.job.program.effect_names), 1)
        count = int(np.clip(_NUMBERS // size, _FEWEST, _DRAWS))
        keys = jax.random.split(self._own_key(), count)
        run = self._cached("draws", guide_draws)
        flat, eta = run(self.state, jnp.asarray(job.flat), self.design, self.session.pop, keys)
        return Samples(np.asarray(flat)[None], np.asarray(eta)[None], {}, independent=True)

    def pareto(self) -> float:
        """Return the Pareto k of the importance weights of the population parameters' guide."""
        job, first, second = self.job, *jax.random.split(jax.random.fold_in(self._own_key(), 1))
        noise = jax.random.normal(first, (_JUDGED, int(job.free.sum())))
        effects = (_REPETITIONS, self.session.pop.n_subjects, len(job.program.effect_names))
        run = self._cached("weights", guide_log_weights)
        start = jnp.asarray(job.flat)
        logs = np.asarray(
            run(self.state, start, self.design, self.session.pop, noise, jax.random.normal(second, effects))
        )
        logs = np.where(np.isnan(logs), -np.inf, logs)
        return float(pareto_k(logs[None])[0]) if np.isfinite(logs).all() else np.inf

    def _cached(self, name: str, build: Any) -> Any:
        """Return a compiled function of the guide, which another fit with the same options shares."""
        known, held = (*self.known_as, name), (self.setting, self.job.counted)
        return cached(self.job.program, known, lambda: (jax.jit(build(self.setting)), held))[0]

    def _own_key(self) -> Any:
        """Return a key that belongs to this program, data and estimate, and not to the seed alone."""
        here = np.asarray(self.flat())
        own = number_of(self.job.program, self.job.layout, self.session.pop, here)
        return own_key(self.job.seed, own)

    def variational(self, elbo: tuple[float, float], k: float) -> Variational:
        """Return the guide, with its bound and the Pareto k of its importance weights."""
        state, start = jax.tree.map(np.asarray, self.state), np.asarray(self.job.flat)
        kept = self.setting
        return Variational(
            self.session, self.vi, self.job.free, kept.shift, kept.pace, state, start, elbo, kept.linked, k
        )

    def flat(self) -> Any:
        """Return the flat vector at the guide's centre."""
        zero = jnp.zeros(int(self.job.free.sum()))
        return place(self.setting, self.state.population, jnp.asarray(self.job.flat), zero)


def _roots(blocks: np.ndarray) -> np.ndarray:
    """Return symmetric roots of covariances, whose eigenvalues are raised to 1e-6 where they are lower."""
    values, vectors = np.linalg.eigh(blocks)
    return np.einsum("nij,nj,nkj->nik", vectors, np.sqrt(np.clip(values, 1e-6, None)), vectors)


def _judged(run: _Run, result: Result, k: float) -> tuple[Result, str]:
    """Return how a run ended and why, after checks of its end point; ``k`` as for :func:`_ended`."""
    result, why = _ended(run, result, k)
    if result in (Result.converged, Result.poor_guide):
        job = run.job
        stayed = unmoved(job.flat, np.asarray(run.flat()), job.free & ~job.layout.weights(), job.layout.names())
        result, why = stayed or (result, why)
    if result is Result.converged and not (run.watcher is not None and run.watcher.enough):
        result, why = _far_off(run) or (result, why)
    if run.skipped and not run.stuck:
        why += f"; {run.skipped} of {len(run.course.bounds)} steps were left out because their gradient was not finite"
    return result, why


def _far_off(run: _Run) -> tuple[Result, str] | None:
    """Return why the centre of the guide is no optimum of the objective, or None where there is no sign of that."""
    job, flat = run.job, np.asarray(run.flat())
    free = job.free & ~job.layout.weights()
    out = run.session.value(flat, run.moments(refined=False)[0])
    if run.vi.population != "point":
        # The mean of a posterior need not be its mode, so that only a clear gain counts.
        return not_optimal(run.session, flat, out, free, clearly=_CLEARLY_OF_POSTERIORS, posterior=True)
    return not_arrived(run.session, job.flat, flat, out, free, job.free & run.roles.prior)


def _ended(run: _Run, result: Result, k: float) -> tuple[Result, str]:
    """Return how a run ended, and why; ``k`` is the Pareto k of its guide, NaN where there is none."""
    if run.stuck:
        finite = np.isfinite(run.course.bounds[-BLOCK:]).any()
        return result, _NO_GRADIENT if finite else _NO_BOUND
    if result is not Result.converged:
        return result, result.meaning
    if run.watcher is not None and run.watcher.enough:
        return result, HeldOut.WHY
    if run.course.fell:
        first, last = run.course.bounds[0], np.median(run.course.bounds[-BLOCK:])
        return Result.no_progress, (
            f"the bound ended at {last:.2f}, below the {first:.2f} that it began with: steps were too long. "
            f"Lower learning_rate"
        )
    if np.isnan(k):
        return result, "the smoothed bound has no trend"
    if k > HIGH_K:
        return Result.poor_guide, (
            f"{Result.poor_guide.meaning}: importance weights of its draws have a Pareto k of {k:.2f}, which should "
            f"be at most {HIGH_K}, so that posterior SDs and intervals from the guide may be far off (usually too "
            f"narrow). Use {_better(run.vi)}hx.NUTS(), or more steps"
        )
    return result, f"the smoothed bound has no trend, and the guide's importance weights have a Pareto k of {k:.2f}"


def _better(vi: VI) -> str:
    """Return the options of guides that may come closer than the one that was used, as words of a message."""
    if vi.population == "mean-field":
        return "population='full', "
    return "guide=hx.guides.Sinh(), " if type(vi.guide) is Normal else ""


def _finish(run: _Run, result: Result, seconds: float) -> Outcome:
    vi, session, course = run.vi, run.session, run.course
    if run.watcher is not None:
        run.state = State(*run.best)
    flat = np.asarray(run.flat())
    bounds = np.array(course.bounds)
    steps = pd.DataFrame({"start": 0, "iteration": np.arange(len(bounds)), "bound": bounds})
    steps["ofv"], steps["gradient"] = np.nan, np.nan
    steps["seconds"] = np.repeat(np.array(run.seconds) / BLOCK, BLOCK)[: len(steps)]
    last = bounds[-_REPORTED_STEPS:]
    elbo = (float(np.mean(last)), float(np.std(last) / np.sqrt(max(len(last), 1))))
    samples, k = None, np.nan
    if vi.population == "point":
        spread = run.moments()
    else:
        samples, k = run.draws(), run.pareto()
        assert samples.eta is not None
        spread = draw_moments(samples.eta)
    result, why = _judged(run, result, k)
    return Outcome(
        **sampled_fields(session, flat, spread),
        penalty=session.penalty(flat)[0],
        result=result,
        why=why,
        history=steps,
        timing={
            "compile": run.seconds[0] if run.seconds else 0.0,
            "search": float(np.sum(run.seconds)),
            "evaluations": len(bounds),
            "total": seconds,
        },
        solver_error=solver_error(session),
        held_out=None if run.watcher is None else np.array(run.watcher.rows),
        extras={"moments": spread, "samples": samples, "variational": run.variational(elbo, k)},
    )
