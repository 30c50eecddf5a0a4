"""Running NUTS on the joint and on the marginal density."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from hierax.data.sanitise import sanitise
from hierax.errors import EstimatorError
from hierax.infer.blocks import draw_moments, inverse_blocks
from hierax.infer.fitting.loop import Blocks
from hierax.infer.fitting.outcome import Outcome, sampled_fields
from hierax.infer.fitting.progress import Progress
from hierax.infer.fitting.samples import Samples
from hierax.infer.judgement.verdict import unmoved
from hierax.infer.marginal.session import Session
from hierax.infer.mcmc.chains import BLOCK, Draws, marginal_potential, nuts_block
from hierax.infer.mcmc.posterior import Posterior, posterior
from hierax.infer.result import Result
from hierax.infer.run.own_number import number_of, own_key
from hierax.infer.saem.roles import find_roles
from hierax.program.identity import fingerprint
from hierax.program.priors import log_prior
from hierax.program.read import cached

if TYPE_CHECKING:
    from hierax.infer.fitting.job import Job
    from hierax.infer.mcmc.nuts import NUTS, MarginalNUTS

# SD of the noise by which the chains' start values differ, in units of the coordinates (prior or posterior SDs).
_JITTER = 0.1
# Number of draws of the first chain at which the error of ODE solutions is evaluated.
_JUDGED = 8


def run_nuts(job: Job, nuts: NUTS) -> Outcome:
    """Sample the joint posterior; see :class:`hierax.NUTS`."""
    began = time.perf_counter()
    job.need_priors("NUTS")
    session, out = _at_start(job, nuts.objective)
    roles = find_roles(job.program, session.pop, job.layout, job.flat, job.free)
    covariance = inverse_blocks(np.asarray(out.hessian))
    density = posterior(
        job.program, job.layout, job.counted, roles, session.pop, job.flat, job.free, np.asarray(out.eta), covariance,
        nuts.centring,
    )  # fmt: skip
    start = density.coordinates(job.flat, np.asarray(out.eta), session.pop)

    def potential(values: Any, data: Any) -> Any:
        return density.with_arrays(data["arrays"]).potential(values, data["pop"])

    data = {"arrays": density.arrays(), "pop": session.pop}
    run = _Chains(job, nuts, start, data, potential, ("joint", roles.shift.tobytes()))
    result = run.go()
    if run.empty:
        raise KeyboardInterrupt
    draws = run.draws()
    flats, etas = _trace_back(density, draws.z, session.pop)
    samples = Samples(flats, etas, _stats(draws))
    return _outcome(job, session, samples, draw_moments(etas), np.nan, began, result)


def run_marginal_nuts(job: Job, nuts: MarginalNUTS) -> Outcome:
    """Sample the posterior of population parameters, random effects integrated out."""
    began = time.perf_counter()
    job.need_priors("MarginalNUTS")
    nuts.check(job.program, job.pop)
    session, out = _at_start(job, nuts.objective)
    index = np.flatnonzero(job.free)
    evaluate = session.compiled

    def potential(values: Any, data: Any) -> Any:
        flat = data["flat"].at[index].set(values["x"])
        prior = log_prior(job.layout, job.counted, flat, sanitise(data["pop"]))
        return marginal_potential(evaluate, flat, data["eta"], data["pop"]) - prior

    data = {"flat": jnp.asarray(job.flat), "eta": out.eta, "pop": session.pop}
    run = _Chains(job, nuts, {"x": job.flat[index]}, data, potential, ("marginal", session.forward))
    result = run.go()
    if run.empty:
        raise KeyboardInterrupt
    draws = run.draws()
    x = draws.z["x"]
    flats = np.broadcast_to(job.flat, (*x.shape[:2], job.layout.size)).copy()
    flats[..., index] = x
    ends = session.value(flats.mean((0, 1)), out.eta)
    moments = np.asarray(ends.eta), inverse_blocks(np.asarray(ends.hessian))
    samples = Samples(flats, None, _stats(draws))
    return _outcome(job, session, samples, moments, np.asarray(ends.value), began, result)


class _Chains(Blocks):
    """Chains in progress: blocks of iterations, their draws so far, and the state to go on from."""

    def __init__(self, job: Job, sampler: Any, start: dict[str, Any], data: Any, potential: Any, key: Any):
        super().__init__(job, sampler)
        self.sampler = sampler
        self.data = jax.tree.map(jnp.asarray, data)
        known = ("nuts", fingerprint((sampler, job.counted)), *key, job.free.tobytes())
        begin, self.compiled = cached(job.program, known, lambda: tuple(map(jax.jit, nuts_block(potential, sampler))))
        # Chains of two fits at the same (default) seed are independent, because the key also depends on the fit.
        own = number_of(job.program, job.layout, job.pop, job.flat)
        keys = jax.vmap(jax.random.key_data)(jax.random.split(own_key(job.seed, own), sampler.chains))
        self.state = begin(_jittered(start, sampler.chains, [job.seed, own]), self.data, keys)
        self.blocks: list[Draws] = []

    @property
    def done(self) -> int:
        """Iterations so far."""
        return BLOCK * len(self.blocks)

    @property
    def empty(self) -> bool:
        """Whether there is no draw yet after the warm-up."""
        return self.done <= self.sampler.warmup

    def tree(self) -> Any:
        """Return what a checkpoint holds."""
        return {"state": self.state, "draws": self._joined() if self.blocks else self._none()}

    @property
    def finished(self) -> bool:
        """Whether all draws are there."""
        return self.done >= self.sampler.warmup + self.sampler.draws

    def known(self) -> dict[str, Any]:
        """Return the draws of the population parameters, if any; those of random effects are computed afterwards."""
        if self.empty:
            # The chains are still in their warm-up: there is no more to show than where they began.
            return {"flat": self.job.flat}
        draws = self.draws()
        x = np.asarray(draws.z["x"])
        flats = np.broadcast_to(self.job.flat, (*x.shape[:2], self.job.layout.size)).copy()
        flats[..., np.flatnonzero(self.job.free)] = x
        return {"flat": flats.mean((0, 1)), "samples": Samples(flats, None, _stats(draws))}

    def announce(self, bar: Progress) -> None:
        """Show no start values, because every chain has its own."""

    def advance(self, bar: Progress) -> None:
        """Run a block of iterations of all chains."""
        self.state, draws = jax.block_until_ready(self.compiled(self.state, self.data))
        self.blocks.append(jax.tree.map(np.asarray, draws))
        phase = "warm-up" if self.done <= self.sampler.warmup else "sampling"
        steps, bad = self.blocks[-1].num_steps.mean(), int(self.blocks[-1].diverging.sum())
        bar.tell(f"{phase}, {steps:.0f} steps a draw, {bad} divergences", BLOCK)

    def template(self) -> Any:
        """Return the structure of ``tree``, draws included."""
        return {"state": self.state, "draws": jax.eval_shape(self.compiled, self.state, self.data)[1]}

    def restore(self, saved: Any) -> None:
        """Go on from a saved state."""
        self.state = jax.tree.map(jnp.asarray, saved["state"])
        draws = saved["draws"]
        count = draws.num_steps.shape[1] // BLOCK
        self.blocks = [jax.tree.map(lambda x, k=k: x[:, k * BLOCK : (k + 1) * BLOCK], draws) for k in range(count)]

    def _none(self) -> Draws:
        shapes = self.template()["draws"]
        return jax.tree.map(lambda leaf: np.zeros((leaf.shape[0], 0, *leaf.shape[2:]), leaf.dtype), shapes)

    def _joined(self) -> Draws:
        return jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *self.blocks)

    def draws(self) -> Draws:
        """Return the draws after the warm-up."""
        sampler = self.sampler
        return jax.tree.map(lambda x: x[:, sampler.warmup : sampler.warmup + sampler.draws], self._joined())


def _at_start(job: Job, objective: Any) -> tuple[Session, Any]:
    """Return the objective's session and its modes at the start values."""
    session = job.session(objective)
    out = session.value(job.flat)
    if not np.isfinite(np.asarray(out.value)).all():
        where = job.explain(session, job.flat, out)
        raise EstimatorError(
            f"The density is not finite at the start values, so that the chains cannot start. Pass init=, or start "
            f"from a fit: init=hx.fit(model, pop, hx.FOCE()).{where}"
        )
    return session, out


def _jittered(centre: dict[str, np.ndarray], chains: int, seed: list[int]) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(value + _JITTER * rng.standard_normal((chains, *value.shape)))
        for name, value in centre.items()
    }


def _trace_back(density: Posterior, draws: Any, pop: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return flat vectors and random effects of all draws."""

    def every(values: Any, data: Any, pop: Any) -> tuple[Any, Any]:
        here, clean = density.with_arrays(data), sanitise(pop)
        return jax.lax.map(lambda one: here.effects(one["x"], one["z"], clean)[:2], values, batch_size=64)

    folded = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), dict(draws))
    known = ("trace back", density.free.tobytes(), density.roles.shift.tobytes())
    flats, etas = cached(density.program, known, lambda: jax.jit(every))(folded, density.arrays(), pop)
    shape = draws["x"].shape[:2]
    return (np.asarray(part).reshape(*shape, *part.shape[1:]) for part in (flats, etas))  # type: ignore[return-value]


def _stats(draws: Draws) -> dict[str, np.ndarray]:
    return {name: getattr(draws, name) for name in ("diverging", "num_steps", "energy", "accept_prob")}


def _solver_error(session: Session, samples: Samples, eta: np.ndarray) -> dict[str, float] | None:
    """Return the largest error of each ODE's grid at some of the draws; None where there is no grid."""
    if session.grids is None:
        return None
    worst: dict[str, float] = {}
    for draw in np.linspace(0, samples.flat.shape[1] - 1, _JUDGED).astype(int):
        effects = eta if samples.eta is None else samples.eta[0, draw]
        session.grids.look(session.pop, session.layout.params(samples.flat[0, draw]), [effects])
        worst = {name: max(error, worst.get(name, 0.0)) for name, error in session.grids.error.items()}
    return worst


def _outcome(
    job: Job,
    session: Session,
    samples: Samples,
    moments: tuple[np.ndarray, np.ndarray],
    value: Any,
    began: float,
    result: Result,
) -> Outcome:
    flat = samples.flat.mean((0, 1))
    solver = _solver_error(session, samples, moments[0])
    if result is Result.interrupted:
        why = f"{result.meaning} after {samples.flat.shape[1]} draws a chain"
    else:
        # A parameter that does not move in some chain has no R-hat by which its draws could be judged.
        moved = np.ptp(samples.flat, axis=1).min(0)
        stayed = unmoved(np.zeros(moved.size), moved, job.free, job.layout.names())
        result, why = stayed or (Result.converged, "R-hat below 1.01, and hardly any divergences")
    steps = int(samples.stats["num_steps"].sum())
    return Outcome(
        **sampled_fields(session, flat, moments, value),
        result=result,
        why=why,
        history=pd.DataFrame(columns=["start", "iteration", "ofv", "gradient", "step", "seconds"]),
        timing={"compile": 0.0, "search": 0.0, "evaluations": steps, "total": time.perf_counter() - began},
        solver_error=solver,
        extras={"moments": moments, "samples": samples},
    )
