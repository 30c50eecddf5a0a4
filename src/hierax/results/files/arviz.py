"""ArviZ data from a fit, for ArviZ 0.23 and 1.x behind one adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from hierax.results.uncertainty.draws import as_chains, asymptotic_draws, chain_coords
from hierax.results.uncertainty.pointwise import (
    at_draws,
    effects_given_draws,
    observation_coords,
    observation_dim,
    pointwise_log_likelihood,
)
from hierax.results.uncertainty.posterior import posterior_dataset
from hierax.versions import is_modern

if TYPE_CHECKING:
    from hierax.results.fit import Fit


# The attribute ``r_hat`` of draws that do not come from Markov chains. They are passed on as one chain, for which ArviZ
# gives an R-hat of NaN.
_NO_CHAIN = (
    "NaN: the draws are independent, and an R-hat near 1 would say nothing about the distribution that they are "
    "drawn from"
)


def bundle(groups: dict[str, xr.Dataset]) -> Any:
    """Return ArviZ's container of these groups: ``InferenceData`` (0.x) or ``xarray.DataTree`` (1.x)."""
    if is_modern():
        return xr.DataTree.from_dict({f"/{name}": data for name, data in groups.items()})
    import arviz

    known = {name: data for name, data in groups.items() if name in arviz.data.inference_data.SUPPORTED_GROUPS_ALL}
    out = arviz.InferenceData(**known, warn_on_custom_groups=False)
    custom = {name: data for name, data in groups.items() if name not in known}
    if custom:
        out.add_groups(custom, warn_on_custom_groups=False)
    return out


def to_arviz(fit: Fit, draws: int, seed: int) -> Any:
    """Return ArviZ data of a fit; see :meth:`hierax.Fit.to_arviz`.

    Groups: ``posterior`` (draws of the estimates' asymptotic normal distribution in unconstrained space, mapped
    back), ``log_likelihood`` (one flat variable per endpoint over ``obs``, given draws of the random effects),
    ``log_likelihood_subject`` (marginal, over ``subject``), ``observed_data``, ``constant_data``, ``ebe``,
    ``fit_stats``. A fit with draws of a posterior has these as ``posterior``, and other groups with them.
    """
    if fit.samples is not None:
        return _posterior_arviz(fit, seed)
    flats = asymptotic_draws(fit, draws, seed)
    subject, observations = pointwise_log_likelihood(fit, flats, seed)
    groups = {
        "posterior": _posterior(fit, flats),
        "log_likelihood": xr.Dataset(observations),
        "log_likelihood_subject": subject.to_dataset(name="subject_log_likelihood"),
        "observed_data": _observed(fit),
        "constant_data": _constant(fit),
        "ebe": fit.ebe,
        "fit_stats": _stats(fit),
    }
    return bundle({name: data.assign_attrs(_attrs(fit)) for name, data in groups.items()})


def _posterior_arviz(fit: Fit, seed: int) -> Any:
    """Return ArviZ data of draws from a posterior, with the sampler's own statistics.

    Where the fit has draws of population parameters only, random effects are drawn for each of them.
    """
    assert fit.samples is not None
    flats, etas = fit.samples.flat, fit.samples.eta
    attrs = {"inference_library": "hierax", "objective": fit.objective_label}
    if etas is None:
        etas = effects_given_draws(fit, flats, seed)
        attrs["random_effects"] = "drawn from the Gaussian at each subject's mode, given each draw of the parameters"
    likelihood, values = at_draws(fit, flats, etas)
    posterior = posterior_dataset(fit, values)
    base = {name: posterior.coords[name] for name in ("chain", "draw")}
    stats = {name: (("chain", "draw"), value) for name, value in fit.samples.stats.items()}
    groups = {
        "posterior": posterior,
        "sample_stats": xr.Dataset(stats, coords=base),
        "log_likelihood": xr.Dataset(likelihood),
        "observed_data": _observed(fit),
        "constant_data": _constant(fit),
    }
    if fit.samples.independent:
        attrs["posterior"] = "independent draws of a variational guide, one chain"
        attrs["r_hat"] = _NO_CHAIN
    return bundle({name: data.assign_attrs(attrs) for name, data in groups.items()})


def _posterior(fit: Fit, flats: np.ndarray) -> xr.Dataset:
    import jax

    values = jax.jit(jax.vmap(lambda flat: fit.program.constrain(fit.layout.unravel(flat))))(flats)
    out = {}
    weights = fit.layout.weights()
    for name, site in fit.program.sites.population.items():
        if weights[fit.layout.slices[name]].any():
            continue
        value = as_chains(np.asarray(values[name]))
        dims = tuple(f"{name}_dim_{axis}" for axis in range(len(site.shape)))
        coords = {dim: np.arange(size) for dim, size in zip(dims, site.shape, strict=True)}
        out[name] = xr.DataArray(value, dims=("chain", "draw", *dims), coords=coords)
    return xr.Dataset(out).assign_coords(chain_coords(len(flats)))


def _observed(fit: Fit) -> xr.Dataset:
    parts = {}
    for name in fit.pop.dv:
        if name in fit.program.sites.data:
            seen, coords = observation_coords(fit, name)
            dim = observation_dim(fit, name)
            coords = {f"{key}_{name}" if dim != "obs" else key: (dim, value) for key, (_, value) in coords.items()}
            parts[name] = xr.DataArray(np.asarray(fit.pop.dv[name])[seen], dims=(dim,), coords=coords)
    return xr.Dataset(parts)


def _constant(fit: Fit) -> xr.Dataset:
    rows = fit.rows
    ids = fit.ids
    times = np.where(np.asarray(fit.pop.record_mask)[rows], np.asarray(fit.pop.times)[rows], np.nan)
    out = xr.Dataset({"TIME": (("subject", "record"), times)}, coords={"subject": ids})
    for name, value in fit.pop.covariates.items():
        value = np.asarray(value)[rows]
        if value.ndim == 2:
            out[name] = ("subject", value[:, 0]) if value.shape[1] == 1 else (("subject", "record"), value)
    return out


def _stats(fit: Fit) -> xr.Dataset:
    values = {"ofv": fit.ofv, "log_likelihood": fit.log_likelihood, "aic": fit.aic, "bic_subjects": fit.bic()}
    return xr.Dataset({**values, "result": fit.result.name})


def _attrs(fit: Fit) -> dict[str, str]:
    return {
        "inference_library": "hierax",
        "objective": fit.objective_label,
        "posterior": "asymptotic normal distribution of the estimates in unconstrained space, no MCMC",
        "r_hat": _NO_CHAIN,
    }
