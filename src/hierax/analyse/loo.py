"""Leave-one-out cross-validation of a fit, by observation or by subject."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import xarray as xr

from hierax.infer.marginal.estimator import Estimator
from hierax.results.files.arviz import bundle
from hierax.results.fit import Fit
from hierax.results.fixed import need_fit
from hierax.results.uncertainty.draws import asymptotic_draws
from hierax.results.uncertainty.pointwise import at_draws, effects_given_draws, pointwise_log_likelihood


def loo(
    fit: Fit,
    *,
    unit: Literal["subject", "obs"] = "subject",
    endpoint: str | None = None,
    method: Estimator | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Any:
    """Return ArviZ's PSIS-LOO, over the posterior's draws where the fit has some.

    Parameters
    ----------
    fit : Fit
        By any estimator. After NUTS, MarginalNUTS and VI with a guide of the population parameters, their draws are
        used; after the others, draws of the estimates' asymptotic distribution, which approximates the posterior under
        flat priors.
    unit : {"subject", "obs"}
        What is left out: a whole subject (marginal likelihood, random effects integrated out) or an observation
        (given draws of the random effects).
    endpoint : str, optional
        Which endpoint for ``unit="obs"``; needed when there are several.
    method : AGQ, FOCE, Laplace or FO, optional
        How a subject's random effects are integrated out; by default ``fit.approximation``.
    draws, seed : int
        Number of draws of the estimates, and their seed; a posterior with more draws is thinned.

    Returns
    -------
    arviz ELPDData
        With a Pareto k for each unit. ``arviz.compare`` compares several of these.

    Notes
    -----
    The method is that of Vehtari, Gelman & Gabry (2017). Merkle, Furr & Rabe-Hesketh (2019) explain why whole subjects
    are left out by their marginal likelihood.

    Examples
    --------
    >>> int(hx.loo(fit, draws=200).n_data_points)
    10
    """
    need_fit(fit, "loo")
    if unit not in ("subject", "obs"):
        raise ValueError(f"loo(unit={unit!r}) is not known. Use 'subject' or 'obs'.")
    if method is not None and not isinstance(method, Estimator):
        raise ValueError(
            f"loo(method={method!r}) does not integrate over the random effects. Use AGQ(n), Laplace(), FOCE() or FO()."
        )
    import arviz

    name, values = (
        _by_subject(fit, method, draws, seed) if unit == "subject" else _by_observation(fit, endpoint, draws, seed)
    )
    # ArviZ uses only the chain and draw axes of the posterior; its values do not matter.
    posterior = xr.Dataset({"draws": values.isel({values.dims[-1]: 0}, drop=True)})
    data = bundle({"posterior": posterior, "log_likelihood": values.to_dataset(name=name)})
    return arviz.loo(data, var_name=name, pointwise=True)


def _by_subject(fit: Fit, method: Estimator | None, draws: int, seed: int) -> tuple[str, xr.DataArray]:
    name = "subject_log_likelihood"
    if fit.samples is None:
        flats = asymptotic_draws(fit, draws, seed)
        return name, pointwise_log_likelihood(fit, flats, seed, method)[0].rename(name)
    chains, length, size = fit.samples.flat.shape
    count = max(min(draws // chains, length), 1)
    kept = np.arange(count) * length // count
    flats = fit.samples.flat[:, kept].reshape(-1, size)
    values = pointwise_log_likelihood(fit, flats, seed, method)[0].values.reshape(chains, count, -1)
    coords = {"chain": np.arange(chains), "draw": kept, "subject": fit.ids}
    return name, xr.DataArray(values, dims=("chain", "draw", "subject"), coords=coords, name=name)


def _by_observation(fit: Fit, endpoint: str | None, draws: int, seed: int) -> tuple[str, xr.DataArray]:
    if fit.samples is not None:
        flats, etas = fit.samples.flat, fit.samples.eta
        observations = at_draws(fit, flats, effects_given_draws(fit, flats, seed) if etas is None else etas)[0]
    else:
        observations = pointwise_log_likelihood(fit, asymptotic_draws(fit, draws, seed), seed)[1]
    if endpoint is None and len(observations) > 1:
        raise ValueError(f"There are several endpoints, {list(observations)}. Name one with endpoint=.")
    name = endpoint or next(iter(observations))
    return name, observations[name].rename(name)
