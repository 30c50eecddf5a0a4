"""Running NUTS, marginal NUTS, MAP and joint MAP."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from hierax.api.job import Job
from hierax.api.saem import roles_of
from hierax.data.sanitise import sanitise
from hierax.errors import EstimatorError
from hierax.infer.checkpoint import Checkpoint
from hierax.infer.counts import count_observations
from hierax.infer.nuts import NUTS, MarginalNUTS, marginal_potential, run_nuts
from hierax.infer.posterior import Posterior, log_prior, posterior
from hierax.infer.result import Result
from hierax.infer.session import Session
from hierax.results.conditional import inverse_blocks
from hierax.results.fit import Fit
from hierax.results.posterior import Samples

# Chains start this far apart, in units of the coordinates (prior or posterior SDs).
_JITTER = 0.1


def need_priors(job: Job, label: str) -> None:
    """Refuse a program some of whose free parameters have no prior."""
    bare = [name for name, place in job.layout.slices.items() if name not in job.counted and job.free[place].any()]
    if bare:
        raise EstimatorError(
            f"{label} needs a prior for every population parameter, but {bare} have none. Pass them with "
            f"fit(priors={{'{bare[0]}': dist.LogNormal(...)}}), write them as sample sites, or hold them with fixed=."
        )


def fit_nuts(job: Job, nuts: NUTS, checkpoint: Checkpoint) -> Fit:
    """Sample the joint posterior; see :class:`hierax.NUTS`."""
    began = time.perf_counter()
    _no_checkpoint(checkpoint, nuts)
    need_priors(job, "NUTS")
    session, out = _at_start(job, nuts.objective)
    roles = roles_of(dataclasses.replace(job, counted={}), session.pop)
    covariance = inverse_blocks(np.asarray(out.hessian))
    density = posterior(
        job.program, job.layout, job.counted, roles, session.pop, job.flat, job.free, np.asarray(out.eta), covariance,
        nuts.centring,
    )  # fmt: skip
    centre = density.coordinates(job.flat, np.asarray(out.eta), session.pop)
    start = _jittered(centre, nuts.chains, job.seed)
    pop = jax.tree.map(jnp.asarray, session.pop)
    mcmc = run_nuts(lambda values: density.potential(values, pop), start, nuts, job.seed, job.progress)
    draws = mcmc.get_samples(group_by_chain=True)
    flats, etas = _trace_back(density, draws, session.pop)
    mean, spread = etas.mean((0, 1)), _covariance(etas)
    samples = Samples(flats, etas, _extra(mcmc, nuts.chains))
    return _result(job, nuts, session, samples, mcmc, mean, spread, np.nan, began)


def fit_marginal_nuts(job: Job, nuts: MarginalNUTS, checkpoint: Checkpoint) -> Fit:
    """Sample the posterior of population parameters, random effects integrated out."""
    began = time.perf_counter()
    _no_checkpoint(checkpoint, nuts)
    need_priors(job, "MarginalNUTS")
    nuts.check(job.program, job.pop)
    session, out = _at_start(job, nuts.objective)
    index = np.flatnonzero(job.free)
    flat, pop = jnp.asarray(job.flat), jax.tree.map(jnp.asarray, session.pop)

    def prior(full: Any) -> Any:
        return log_prior(job.layout, job.counted, full, sanitise(pop))

    density = marginal_potential(session.compiled, prior, out.eta, pop)
    start = _jittered({"x": job.flat[index]}, nuts.chains, job.seed)
    mcmc = run_nuts(lambda values: density(flat.at[index].set(values["x"])), start, nuts, job.seed, job.progress)
    x = np.asarray(mcmc.get_samples(group_by_chain=True)["x"])
    flats = np.broadcast_to(job.flat, (*x.shape[:2], job.layout.size)).copy()
    flats[..., index] = x
    ends = session.value(flats.mean((0, 1)), out.eta)
    samples = Samples(flats, None, _extra(mcmc, nuts.chains))
    covariance = inverse_blocks(np.asarray(ends.hessian))
    return _result(job, nuts, session, samples, mcmc, np.asarray(ends.eta), covariance, np.asarray(ends.value), began)


def _no_checkpoint(checkpoint: Checkpoint, sampler: Any) -> None:
    if checkpoint.path is not None:
        raise ValueError(
            f"{type(sampler).__name__} writes no checkpoints, because its chains run in one compiled loop. Run fewer "
            f"draws, and go on with init=fit; or use SAEM or VI, which do."
        )


def _at_start(job: Job, objective: Any) -> tuple[Session, Any]:
    """Return the objective's session and its modes at the start values."""
    session = job.session(objective)
    out = session.value(job.flat)
    if not np.isfinite(np.asarray(out.value)).all():
        raise EstimatorError(
            "The density is not finite at the start values, so that chains have nowhere to begin. Pass init=, or start "
            "from a fit: init=hx.fit(model, pop, hx.FOCE())."
        )
    return session, out


def _jittered(centre: dict[str, np.ndarray], chains: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(value + _JITTER * rng.standard_normal((chains, *value.shape)))
        for name, value in centre.items()
    }


def _trace_back(density: Posterior, draws: Any, pop: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return flat vectors and random effects of all draws."""

    def one(values: Any) -> tuple[Any, Any]:
        return density.effects(values["x"], values["z"], sanitise(pop))[:2]

    folded = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), dict(draws))
    flats, etas = jax.jit(lambda values: jax.lax.map(one, values, batch_size=64))(folded)
    shape = draws["x"].shape[:2]
    return (np.asarray(part).reshape(*shape, *part.shape[1:]) for part in (flats, etas))  # type: ignore[return-value]


def _covariance(etas: np.ndarray) -> np.ndarray:
    flat = etas.reshape(-1, *etas.shape[2:])
    centred = flat - flat.mean(0)
    return np.einsum("mni,mnj->nij", centred, centred) / max(len(flat) - 1, 1)


def _extra(mcmc: Any, chains: int) -> dict[str, np.ndarray]:
    fields = mcmc.get_extra_fields(group_by_chain=True)
    return {name: np.asarray(fields[name]) for name in ("diverging", "num_steps", "energy", "accept_prob")}


def _result(
    job: Job, sampler: Any, session: Session, samples: Samples, mcmc: Any, eta: np.ndarray, covariance: np.ndarray,
    value: Any, began: float,
) -> Fit:  # fmt: skip
    flat = samples.flat.mean((0, 1))
    params = job.layout.params(flat)
    count, gaussian = count_observations(job.program, job.pop, params)
    out = Fit(
        session=session,
        method=sampler,
        params=params,
        flat=flat,
        eta=eta,
        value=np.broadcast_to(value, (job.pop.n_subjects,)).copy(),
        hessian=inverse_blocks(covariance),
        codes=np.zeros(job.pop.n_subjects, int),
        n_observations=count,
        n_gaussian=gaussian,
        free=job.free,
        gradient=np.full(flat.size, np.nan),
        history=pd.DataFrame(columns=["start", "iteration", "ofv", "gradient", "step", "seconds"]),
        timing={"compile": 0.0, "search": 0.0, "evaluations": int(samples.stats["num_steps"].sum()), "total": 0.0},
        moments=(eta, covariance),
        samples=samples,
        mcmc=mcmc,
        **job.record(),
    )
    trouble = out.samples.trouble(out) if out.samples is not None else ""
    out.result = Result.not_mixed if trouble else Result.converged
    out.why = trouble or "R-hat below 1.01, and no divergences to speak of"
    out.timing["total"] = time.perf_counter() - began
    return out
