"""Individual results: predictions of every record, EBEs, and the table of records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import xarray as xr
from jaxtyping import Array

from hierax.data.population import Population
from hierax.data.sanitise import sanitise
from hierax.infer.fitting.outcome import with_modes
from hierax.infer.marginal.session import session_of
from hierax.infer.simulate.simulation import every_record
from hierax.program.density import Program, unwrap
from hierax.program.read import cached

if TYPE_CHECKING:
    from hierax.results.fit import Evaluation, Fit


def predictions(
    program: Program, pop: Population, params: Mapping[str, Any], eta: Any
) -> tuple[dict[str, tuple[Array, Array, bool]], dict[str, Array]]:
    """Return (mean, SD, whether on the log scale) of each endpoint at every record, and the individual parameters.

    ``eta`` None stands for the reference point of the random effects. For a log-normal distribution the mean is
    exp(loc) and the SD is that of the log.
    """
    logs: dict[str, bool] = {}

    def run(pop: Population, params: Mapping[str, Any], eta: Any) -> Any:
        done = program.run(every_record(sanitise(pop)), params, eta)
        out = {}
        for name, site in program.sites.data.items():
            if site.factor:
                continue
            msg = done.messages[name]
            mean, sd, logs[name] = _moments(unwrap(msg["fn"])[1])
            shape = tuple(msg["fn"].batch_shape) + tuple(msg["fn"].event_shape)
            out[name] = jnp.broadcast_to(mean, shape), jnp.broadcast_to(sd, shape)
        individual = {name: done.messages[name]["value"] for name in program.sites.individual}
        return out, individual

    key = ("predictions", eta is None)
    function, logs = cached(program, key, lambda: (jax.jit(run), logs))
    out, individual = function(pop, dict(params), eta)
    return {name: (*moments, logs[name]) for name, moments in out.items()}, individual


def _moments(fn: Any) -> tuple[Any, Any, bool]:
    """Return the mean and SD of a distribution, and whether it is log-normal (then exp(loc) and the SD of the log)."""
    if type(fn) is dist.LogNormal:
        return jnp.exp(fn.loc), fn.scale, True
    if type(fn) is dist.StudentT:
        df = jnp.asarray(fn.df)
        heavy = df <= 2
        scale = jnp.asarray(fn.scale)
        return fn.loc, jnp.where(heavy, jnp.nan, scale * jnp.sqrt(df / jnp.where(heavy, 1.0, df - 2))), False
    return fn.mean, jnp.sqrt(fn.variance), False


def embeddings(fit: Fit, pop: Population | None) -> xr.DataArray:
    """Return conditional means or EBEs, labelled; see :meth:`hierax.Fit.embeddings`."""
    guide = fit.variational
    where = fit.pop if pop is None else pop
    rows = np.flatnonzero(np.asarray(where.subject_mask))
    if guide is not None and (pop is None or not guide.setting.vi.guide.local):
        values = guide.encode(where)[0]
    elif pop is None:
        values = (fit.eta if fit.moments is None else fit.moments[0])[rows]
    else:
        session = session_of(fit.program, pop, fit.approximation)
        values = np.asarray(with_modes(session, fit.flat, session.value(fit.flat)).eta)[rows]
    coords = {"subject": where.subject_ids, "eta_name": list(fit.program.effect_names)}
    return xr.DataArray(values, dims=("subject", "eta_name"), coords=coords, name="embedding")


def ebe_dataset(result: Evaluation) -> xr.Dataset:
    """Return modes, their SDs and individual parameters, labelled by subject."""
    rows, names = result.rows, list(result.program.effect_names)
    spread = np.full((len(rows), len(names)), np.nan)
    for position, block in enumerate(result.hessian[rows]):
        if (
            len(names)
            and result.approximation.has_modes
            and np.isfinite(block).all()
            and np.linalg.eigvalsh(block).min() > 0
        ):
            spread[position] = np.sqrt(np.diag(np.linalg.inv(block)))
    active = active_coordinates(result)[rows]
    modes, spread = np.where(active, result.eta[rows], np.nan), np.where(active, spread, np.nan)
    out = xr.Dataset(
        {"eta": (("subject", "eta_name"), modes), "eta_sd": (("subject", "eta_name"), spread)},
        coords={"subject": result.ids, "eta_name": names},
    )
    _, individual = predictions(result.program, result.pop, result.params, result.eta)
    for name, value in individual.items():
        value = np.asarray(value)[rows]
        dims = ("subject", *(f"{name}_dim_{axis}" for axis in range(1, value.ndim)))
        out[name] = (dims[:1], value[:, 0]) if value.ndim == 2 and value.shape[1] == 1 else (dims, value)
    return out.assign_attrs(objective=result.objective_label)


def active_coordinates(result: Evaluation) -> np.ndarray:
    """Return which random effects each subject has, (subject, coordinate); those of absent occasions are masked."""
    program = result.program
    if not program.effect_names:
        return np.zeros(result.eta.shape, bool)
    function = cached(program, "active", lambda: jax.jit(program.active))
    return np.asarray(function(result.pop, result.params))


def observed_endpoints(result: Evaluation) -> list[str]:
    """Return the endpoints of the population that the program observes, record by record."""
    sites = result.program.sites
    shape = np.shape(result.pop.times)
    return [
        name
        for name in result.pop.dv
        if name in sites.data and not sites.data[name].factor and np.shape(result.pop.mask[name]) == shape
    ]


def prior_sd(result: Evaluation) -> np.ndarray:
    """Return the prior SD of every coordinate, (subject, coordinate)."""
    program = result.program
    function = cached(program, "prior_sd", lambda: jax.jit(program.prior_scale))
    return np.asarray(function(result.pop, result.params, result.eta))


def shrinkage(result: Evaluation) -> pd.DataFrame:
    """Return the shrinkage of the EBEs by coordinate: 1 − SD(η̂)/ω and 1 − Var(η̂)/ω² (n − 1 variance).

    It is computed over the subjects that have the random effect, and is NaN for an approximation without modes. ω is
    the prior SD in the working coordinate, averaged over subjects where it differs.
    """
    rows, names = result.rows, list(result.program.effect_names)
    active = active_coordinates(result)[rows]
    sds = prior_sd(result)[rows]
    # A random effect that no subject has, such as that of an absent occasion, has no SD.
    omega = np.array([sds[here, index].mean() if here.any() else np.nan for index, here in enumerate(active.T)])
    spread = np.full(len(names), np.nan)
    for index, here in enumerate(active.T):
        if here.sum() > 1 and result.approximation.has_modes:
            spread[index] = result.eta[rows][here, index].std(ddof=1)
    ratio = np.divide(spread, omega, out=np.full(len(names), np.nan), where=omega > 0)
    return pd.DataFrame(
        {"omega (SD)": omega, "shrinkage (SD)": 1 - ratio, "shrinkage (variance)": 1 - ratio**2}, index=names
    )


def record_table(result: Evaluation) -> pd.DataFrame:
    """Return the table of records; see :meth:`hierax.Fit.table`."""
    pop, program = result.pop, result.program
    population, _ = predictions(program, pop, result.params, None)
    individual, parameters = predictions(program, pop, result.params, result.eta)
    subject, record = np.nonzero(np.asarray(pop.record_mask) & np.asarray(pop.subject_mask)[:, None])
    at = (subject, record)
    ids = np.array(result.ids, dtype=object)
    index = np.cumsum(np.asarray(pop.subject_mask)) - 1
    frame = pd.DataFrame({"ID": ids[index[subject]], "TIME": np.asarray(pop.times)[at]}).infer_objects()
    columns = {name: np.full(len(subject), np.nan) for name in ("DV", "PRED", "IPRED", "IRES", "IWRES")}
    endpoint = np.full(len(subject), "", dtype=object)
    censored = np.zeros(len(subject), int)
    for name in pop.dv:
        if name not in individual or individual[name][0].shape != np.shape(pop.times):
            continue
        seen = np.asarray(pop.mask[name])[at]
        shown = seen if len(pop.dv) > 1 else np.ones_like(seen)
        endpoint[seen] = name
        pred, ipred = np.asarray(population[name][0])[at], np.asarray(individual[name][0])[at]
        sd, log_scale = np.asarray(individual[name][1])[at], individual[name][2]
        dv = np.asarray(pop.dv[name])[at]
        codes = np.asarray(pop.cens[name])[at] if name in pop.cens else np.zeros(len(subject), int)
        exact = codes == 0
        censored[seen] = codes[seen]
        for key, values, where in (("DV", dv, seen), ("PRED", pred, shown), ("IPRED", ipred, shown)):
            columns[key][where] = values[where]
        # Residuals are computed for quantified observations only: other entries hold constants without a meaning.
        told = seen & exact
        dv, ipred, sd = dv[told], ipred[told], sd[told]
        # Without a warning: an observation or prediction with no finite log, or an SD of 0, gives an infinite residual
        # or NaN.
        with np.errstate(divide="ignore", invalid="ignore"):
            difference = np.log(dv) - np.log(ipred) if log_scale else dv - ipred
            columns["IRES"][told], columns["IWRES"][told] = difference, difference / sd
    frame["ENDPOINT"] = endpoint
    if pop.cens:
        frame["CENS"] = censored
    frame = frame.assign(**columns)
    active = active_coordinates(result)
    for position, name in enumerate(program.effect_names):
        frame[name] = np.where(active[subject, position], result.eta[subject, position], np.nan)
    for name, value in parameters.items():
        value = np.asarray(value)
        if value.ndim == 2 and value.shape[1] in (1, pop.n_records):
            frame[_free(frame, name, "site")] = np.broadcast_to(value, np.shape(pop.times))[at]
    for name, value in pop.covariates.items():
        if np.ndim(value) == 2:
            wide = np.broadcast_to(np.asarray(value), np.shape(pop.times))[at]
            labels = pop.labels.get(name)
            own = _free(frame, name, "covariate")
            frame[own] = wide if labels is None else np.array(labels, dtype=object)[wide.astype(int)]
    return frame


def _free(frame: pd.DataFrame, name: str, kind: str) -> str:
    """Return a column name that is not yet in the table, such as ``CL (covariate)`` beside a parameter CL."""
    return name if name not in frame.columns else f"{name} ({kind})"
