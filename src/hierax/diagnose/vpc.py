"""The visual predictive check."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from hierax.arguments import whole
from hierax.data.censoring import Limits, limits_of
from hierax.diagnose.bins import bin_numbers
from hierax.diagnose.vpc_tables import categories, quantile_table, share_table
from hierax.errors import tell
from hierax.infer.simulate.simulation import draw
from hierax.results.fit import Evaluation
from hierax.results.individual import observed_endpoints
from hierax.results.uncertainty.parameter_draws import drawn_parameters, how_drawn


@dataclasses.dataclass(frozen=True)
class VPC:
    """Observed statistics over time against those of simulated data sets.

    Attributes
    ----------
    endpoint : str
        The endpoint.
    table : pandas.DataFrame
        One row per bin and quantile or, for a discrete endpoint, per bin and category: ``time``, ``count``,
        ``quantile`` or ``category``, ``observed`` (the quantile, or the category's proportion), ``simulated`` (its
        median over the data sets), ``lower`` and ``upper`` (the interval of its values in the data sets).
    observed : pandas.DataFrame
        The observations: ``time``, ``dv``, ``censored`` (1 below its limit, -1 above, 0 quantified).
    n, level : int, float
        Number of simulated data sets, and the level of the interval.
    inside : float
        Share of the quantified observations that lie between the outer simulated quantiles of their bin; NaN for a
        discrete endpoint.
    kind : {"quantiles", "proportions"}
        What the table holds.
    censored : pandas.DataFrame or None
        One row per bin and side ("below" or "above") with the share of data beyond that limit of quantification:
        ``time``, ``count``, ``side``, ``observed``, ``simulated``, ``lower``, ``upper``. None where no data are
        censored.
    parameters : str
        Which population parameters the data sets were simulated with.

    Examples
    --------
    >>> found = hx.vpc(fit, n=20)
    >>> found.kind
    'quantiles'
    """

    endpoint: str
    table: pd.DataFrame
    observed: pd.DataFrame
    n: int
    level: float
    inside: float
    kind: Literal["quantiles", "proportions"] = "quantiles"
    censored: pd.DataFrame | None = None
    parameters: str = "the estimate in every replicate"


def vpc(
    fit: Evaluation,
    *,
    endpoint: str | None = None,
    n: int = 500,
    quantiles: Sequence[float] = (0.1, 0.5, 0.9),
    level: float = 0.9,
    bins: int | Sequence[float] | None = None,
    seed: int = 0,
    parameters: Any = None,
    lloq: Any = None,
    uloq: Any = None,
) -> VPC:
    """Simulate the population at its own design and compare observed and simulated data over time.

    Continuous endpoints are compared by quantiles, discrete ones (binary, ordered, counts) by the proportions of
    their values, or of groups of values where there are many.

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
        Level of the interval of the simulated quantiles or proportions.
    bins : int or sequence of float, optional
        Number of bins with about the same number of observations, or the edges between bins. By default, nominal times
        are bins of their own where the observations follow such a schedule; otherwise there are as many bins as a
        subject has observations (median), between 4 and 12.
    seed : int
        Seed of the simulated data sets.
    parameters : {"draws", "estimate"}, SIR, Bootstrap or DataFrame, optional
        Population parameters of the data sets, as for :func:`hierax.simulate`.
    lloq, uloq : float or array, (subject, time), optional
        Limits of quantification. By default they are taken from the censored records; where these have different
        limits, a warning says what was assumed for the other records.

    Returns
    -------
    VPC
        ``hx.plot.vpc`` draws it.

    Notes
    -----
    Simulated values beyond a limit of quantification are censored as the observed ones are. Quantiles, observed and
    simulated, are those of the quantified values, and the shares of censored data are compared in a separate table.

    Examples
    --------
    >>> hx.vpc(fit, n=20).table['quantile'].unique().tolist()
    [0.1, 0.5, 0.9]
    """
    if not quantiles or not all(0 < one < 1 for one in (*quantiles, level)):
        raise ValueError(
            f"vpc(quantiles={tuple(quantiles)}, level={level}) needs shares between 0 and 1, such as "
            f"quantiles=(0.1, 0.5, 0.9) and level=0.9."
        )
    whole("n", n, 1)
    name = _endpoint(fit, endpoint)
    pop = fit.pop
    seen = np.asarray(pop.mask[name]) & np.asarray(pop.subject_mask)[:, None]
    if not seen.any():
        raise ValueError(f"vpc has no observations of '{name}' to compare with. Simulate such a design by hx.simulate.")
    flats = drawn_parameters(fit, parameters, n, seed)
    given = fit.params if flats is None else {}
    simulated = draw(fit.program, pop, given, n, seed, flats=flats, sites=[name])[name][:, seen].astype(float)
    times, observed = np.asarray(pop.times)[seen], np.asarray(pop.dv[name], float)[seen]
    limits = _limits(fit, name, lloq, uloq)
    codes = np.asarray(pop.cens[name])[seen] if name in pop.cens else np.zeros(len(times), int)
    drawn_codes = _at_observations(limits, seen).codes(simulated)
    if (codes != 0).all() or ((drawn_codes != 0).all() and not _is_discrete(fit, name)):
        raise ValueError(
            f"vpc(lloq={lloq}, uloq={uloq}) leaves no quantified value of '{name}', of which the data lie between "
            f"{np.nanmin(observed):.3g} and {np.nanmax(observed):.3g}. Give the limits in the units of the data."
        )
    place = bin_numbers(times, int(np.median(seen.sum(1)[seen.any(1)])), bins)
    sides = {
        code: side for code, side in ((1, "below"), (-1, "above")) if (codes == code).any() or _has_limit(limits, code)
    }
    censored = share_table(times, place, codes, drawn_codes, sides, "side", level) if sides else None
    data = pd.DataFrame({"time": times, "dv": observed, "censored": codes})
    said = how_drawn(fit, parameters)
    if _is_discrete(fit, name):
        number, labels = categories(observed[codes == 0], simulated[drawn_codes == 0])
        either = np.where(codes == 0, number(observed), -1), np.where(drawn_codes == 0, number(simulated), -1)
        table = share_table(times, place, *either, labels, "category", level)
        return VPC(name, table, data, n, level, np.nan, "proportions", censored, said)
    kept = np.where(codes == 0, observed, np.nan), np.where(drawn_codes == 0, simulated, np.nan)
    table, inside = quantile_table(times, place, *kept, quantiles, level)
    return VPC(name, table, data, n, level, inside, "quantiles", censored, said)


def _endpoint(fit: Evaluation, endpoint: str | None) -> str:
    names = observed_endpoints(fit)
    if endpoint is None and len(names) == 1:
        return names[0]
    if endpoint not in names:
        raise ValueError(f"vpc(endpoint={endpoint!r}): the observed endpoints are {names}. Name one of them.")
    return endpoint


def _limits(fit: Evaluation, name: str, lloq: Any, uloq: Any) -> Limits:
    limits = limits_of(fit.pop, name, lloq, uloq)
    if limits.assumed:
        tell(
            f"The censored records of '{name}' have {limits.assumed}. Where you know the limits of all records, pass "
            f"them: vpc(lloq=, uloq=), a number or an array (subject, time).",
        )
    return limits


def _at_observations(limits: Limits, seen: np.ndarray) -> Limits:
    """Return the limits at the observations alone."""
    names = ("lower", "upper", "low_end", "high_end")
    return dataclasses.replace(limits, **{part: getattr(limits, part)[seen] for part in names})


def _has_limit(limits: Limits, code: int) -> bool:
    return bool(np.isfinite(limits.lower if code == 1 else limits.upper).any())


def _is_discrete(fit: Evaluation, name: str) -> bool:
    return bool(fit.program.sites.messages[name]["fn"].is_discrete)
