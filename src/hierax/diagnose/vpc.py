"""The visual predictive check."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from hierax.infer.simulation import draw
from hierax.results.fit import Evaluation
from hierax.results.individual import observed_endpoints


@dataclasses.dataclass(frozen=True)
class VPC:
    """Observed quantiles over time against those of simulated data sets.

    Attributes
    ----------
    endpoint : str
        The endpoint.
    table : pandas.DataFrame
        One row a (bin, quantile): ``time``, ``count``, ``quantile``, ``observed``, ``simulated`` (median over the
        data sets), ``lower`` and ``upper`` (the interval of the data sets' quantiles).
    observed : pandas.DataFrame
        The observations: ``time``, ``dv``.
    n, level : int, float
        Number of simulated data sets, and the level of the interval.
    inside : float
        Share of the observations between the outer simulated quantiles of their bin.
    """

    endpoint: str
    table: pd.DataFrame
    observed: pd.DataFrame
    n: int
    level: float
    inside: float


def vpc(
    fit: Evaluation,
    *,
    endpoint: str | None = None,
    n: int = 500,
    quantiles: Sequence[float] = (0.1, 0.5, 0.9),
    level: float = 0.9,
    bins: int | Sequence[float] | None = None,
    seed: int = 0,
) -> VPC:
    """Simulate the population at its own design and compare quantiles of observed and simulated data over time.

    Parameters
    ----------
    fit : Fit or Evaluation
        The program with its parameters.
    endpoint : str, optional
        Which endpoint; needed when there are several.
    n : int
        Number of simulated data sets.
    quantiles : sequence of float
        The quantiles compared in every bin.
    level : float
        Level of the interval of the simulated quantiles.
    bins : int or sequence of float, optional
        Number of bins with about the same number of observations, or the edges between bins. Without it, as many
        bins as a subject has observations (median), 4 to 12.

    Returns
    -------
    VPC
        ``hx.plot.vpc`` draws it. Censored observations are left out.
    """
    name = _endpoint(fit, endpoint)
    pop = fit.pop
    seen = np.asarray(pop.mask[name]) & np.asarray(pop.subject_mask)[:, None]
    if name in pop.cens:
        # Draws are not censored, so that censored data have nothing to be compared with here.
        seen = seen & (np.asarray(pop.cens[name]) == 0)
    times, observed = np.asarray(pop.times)[seen], np.asarray(pop.dv[name])[seen]
    simulated = draw(fit.program, pop, fit.params, n, seed)[name][:, seen]
    usual = int(np.median(seen.sum(1)[seen.any(1)]))
    place = _bins(times, min(max(usual, 4), 12) if bins is None else bins)
    rows: list[dict[str, Any]] = []
    inside = np.zeros(len(times), bool)
    tail = (1 - level) / 2
    for number in np.unique(place):
        here = place == number
        spread = np.quantile(simulated[:, here], quantiles, axis=1)
        outer = np.quantile(simulated[:, here], [min(quantiles), max(quantiles)])
        inside[here] = (observed[here] >= outer[0]) & (observed[here] <= outer[1])
        for quantile, values in zip(quantiles, spread, strict=True):
            rows.append(
                {
                    "time": float(np.median(times[here])),
                    "count": int(here.sum()),
                    "quantile": quantile,
                    "observed": float(np.quantile(observed[here], quantile)),
                    "simulated": float(np.median(values)),
                    "lower": float(np.quantile(values, tail)),
                    "upper": float(np.quantile(values, 1 - tail)),
                }
            )
    data = pd.DataFrame({"time": times, "dv": observed})
    return VPC(name, pd.DataFrame(rows), data, n, level, float(inside.mean()))


def _endpoint(fit: Evaluation, endpoint: str | None) -> str:
    names = observed_endpoints(fit)
    if endpoint is None and len(names) == 1:
        return names[0]
    if endpoint not in names:
        raise ValueError(f"vpc(endpoint={endpoint!r}): the observed endpoints are {names}. Name one of them.")
    return endpoint


def _bins(times: np.ndarray, bins: int | Sequence[float]) -> np.ndarray:
    """Return the bin of every observation; equal times share a bin."""
    if not isinstance(bins, int):
        return np.searchsorted(np.asarray(bins, float), times, side="right")
    edges = np.unique(np.quantile(times, np.linspace(0, 1, bins + 1)[1:-1]))
    return np.searchsorted(edges, times, side="right")
