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

from hierax.data.population import Population, sanitise
from hierax.infer.objective import cached
from hierax.infer.simulation import every_record
from hierax.program.density import Program, unwrap

if TYPE_CHECKING:
    from hierax.results.fit import Evaluation


def predictions(
    program: Program, pop: Population, params: Mapping[str, Any], eta: Any
) -> tuple[dict[str, tuple[Array, Array, bool]], dict[str, Array]]:
    """Return by endpoint (mean, SD, log scale?) at every record, and the individual parameters; compiled.

    ``eta`` None is the reference point of the random effects. A log-normal's mean is exp(loc), its SD that of the
    log.
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

    key = ("predictions", id(program), eta is None)
    function, logs = cached(program.model, key, lambda: (jax.jit(run), logs))
    out, individual = function(pop, dict(params), eta)
    return {name: (*moments, logs[name]) for name, moments in out.items()}, individual


def _moments(fn: Any) -> tuple[Any, Any, bool]:
    """Return mean, SD and whether they are those of the log (mean: exp(loc))."""
    if type(fn) is dist.LogNormal:
        return jnp.exp(fn.loc), fn.scale, True
    if type(fn) is dist.StudentT:
        df = jnp.asarray(fn.df)
        heavy = df <= 2
        return fn.loc, jnp.where(heavy, jnp.nan, fn.scale * jnp.sqrt(df / jnp.where(heavy, 1.0, df - 2))), False
    return fn.mean, jnp.sqrt(fn.variance), False


def ebe_dataset(result: Evaluation) -> xr.Dataset:
    """Return modes, their SDs and individual parameters, labelled by subject."""
    rows, names = result.rows, list(result.program.effect_names)
    spread = np.full((len(rows), len(names)), np.nan)
    for position, block in enumerate(result.hessian[rows]):
        if len(names) and np.isfinite(block).all() and np.linalg.eigvalsh(block).min() > 0:
            spread[position] = np.sqrt(np.diag(np.linalg.inv(block)))
    out = xr.Dataset(
        {"eta": (("subject", "eta_name"), result.eta[rows]), "eta_sd": (("subject", "eta_name"), spread)},
        coords={"subject": list(result.pop.ids or range(len(rows))), "eta_name": names},
    )
    _, individual = predictions(result.program, result.pop, result.params, result.eta)
    for name, value in individual.items():
        value = np.asarray(value)[rows]
        dims = ("subject", *(f"{name}_dim_{axis}" for axis in range(1, value.ndim)))
        out[name] = (dims[:1], value[:, 0]) if value.ndim == 2 and value.shape[1] == 1 else (dims, value)
    return out.assign_attrs(objective=result.objective_label)


def prior_sd(result: Evaluation) -> np.ndarray:
    """Return the prior SD of every coordinate, (subject, coordinate)."""
    program = result.program
    function = cached(program.model, ("prior_sd", id(program)), lambda: jax.jit(program.prior_scale))
    return np.asarray(function(result.pop, result.params, result.eta))


def shrinkage(result: Evaluation) -> pd.DataFrame:
    """Return the shrinkage of the EBEs by coordinate: 1 − SD(η̂)/ω and 1 − Var(η̂)/ω² (n − 1 variance).

    ω is the prior SD in the working coordinate, averaged over subjects where it differs.
    """
    rows, names = result.rows, list(result.program.effect_names)
    omega = prior_sd(result)[rows].mean(0)
    spread = result.eta[rows].std(0, ddof=1) if len(rows) > 1 else np.full(len(names), np.nan)
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
    ids = np.array(list(pop.ids or range(len(pop))), dtype=object)
    index = np.cumsum(np.asarray(pop.subject_mask)) - 1
    frame = pd.DataFrame({"ID": ids[index[subject]], "TIME": np.asarray(pop.times)[at]}).infer_objects()
    columns = {name: np.full(len(subject), np.nan) for name in ("DV", "PRED", "IPRED", "IRES", "IWRES")}
    endpoint = np.full(len(subject), "", dtype=object)
    for name in pop.dv:
        if name not in individual or individual[name][0].shape != np.shape(pop.times):
            continue
        seen = np.asarray(pop.mask[name])[at]
        shown = seen if len(pop.dv) > 1 else np.ones_like(seen)
        endpoint[seen] = name
        pred, ipred = np.asarray(population[name][0])[at], np.asarray(individual[name][0])[at]
        sd, log_scale = np.asarray(individual[name][1])[at], individual[name][2]
        dv = np.asarray(pop.dv[name])[at]
        with np.errstate(divide="ignore", invalid="ignore"):
            difference = np.log(dv) - np.log(ipred) if log_scale else dv - ipred
        for key, values, where in (
            ("DV", dv, seen),
            ("PRED", pred, shown),
            ("IPRED", ipred, shown),
            ("IRES", difference, seen),
            ("IWRES", difference / sd, seen),
        ):
            columns[key][where] = values[where]
    frame["ENDPOINT"] = endpoint
    frame = frame.assign(**columns)
    for position, name in enumerate(program.effect_names):
        frame[name] = result.eta[subject, position]
    for name, value in parameters.items():
        value = np.asarray(value)
        if value.ndim == 2 and value.shape[1] in (1, pop.n_records):
            frame[name] = np.broadcast_to(value, np.shape(pop.times))[at]
    for name, value in pop.covariates.items():
        if np.ndim(value) == 2:
            frame[name] = np.broadcast_to(np.asarray(value), np.shape(pop.times))[at]
    return frame
