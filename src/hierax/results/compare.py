"""Leave-one-out cross-validation of a fit, by observation or by subject."""

from __future__ import annotations

from typing import Any, Literal

import xarray as xr

from hierax.results.arviz import bundle
from hierax.results.draws import asymptotic_draws
from hierax.results.fit import Fit
from hierax.results.pointwise import pointwise_log_likelihood


def loo(
    fit: Fit,
    *,
    unit: Literal["subject", "obs"] = "subject",
    endpoint: str | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Any:
    """Return ArviZ's PSIS-LOO over the estimates' asymptotic distribution.

    Parameters
    ----------
    fit : Fit
        The fit.
    unit : {"subject", "obs"}
        What is left out: a whole subject (marginal likelihood, random effects integrated out) or an observation
        (given draws of the random effects).
    endpoint : str, optional
        Which endpoint for ``unit="obs"``; needed when there are several.
    draws, seed : int
        Draws of the estimates, and their seed.

    Returns
    -------
    arviz ELPDData
        With Pareto-k by unit.
    """
    if unit not in ("subject", "obs"):
        raise ValueError(f"loo(unit={unit!r}) is not known. Use 'subject' or 'obs'.")
    import arviz

    flats = asymptotic_draws(fit, draws, seed)
    subject, observations = pointwise_log_likelihood(fit, flats, seed)
    if unit == "obs":
        if endpoint is None and len(observations) > 1:
            raise ValueError(f"There are several endpoints, {list(observations)}. Name one with endpoint=.")
        name = endpoint or next(iter(observations))
        values = observations[name].rename(name)
    else:
        name, values = "subject_log_likelihood", subject.rename("subject_log_likelihood")
    # PSIS needs the chain and draw axes of a posterior alone; its values do not enter.
    posterior = xr.Dataset({"draws": values.isel({values.dims[-1]: 0}, drop=True)})
    data = bundle({"posterior": posterior, "log_likelihood": values.to_dataset(name=name)})
    return arviz.loo(data, var_name=name, pointwise=True)
