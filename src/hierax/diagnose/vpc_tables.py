"""Tables of a visual predictive check: quantiles, proportions of categories, shares of censored data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

# A discrete endpoint with more different values than this is compared by groups of values.
_MOST_CATEGORIES = 8
# Groups of values end at these quantiles of the observed values.
_GROUP_ENDS = (0.2, 0.4, 0.6, 0.8)

Statistic = Callable[[np.ndarray], float]


def band(values: np.ndarray, level: float) -> dict[str, float]:
    """Return median and interval of a statistic over the simulated data sets; NaN where no data set has a value."""
    there = values[np.isfinite(values)]
    if not there.size:
        return {"simulated": np.nan, "lower": np.nan, "upper": np.nan}
    low, middle, high = np.quantile(there, [(1 - level) / 2, 0.5, (1 + level) / 2])
    return {"simulated": float(middle), "lower": float(low), "upper": float(high)}


def quantile_table(
    times: np.ndarray,
    place: np.ndarray,
    observed: np.ndarray,
    simulated: np.ndarray,
    quantiles: Sequence[float],
    level: float,
) -> tuple[pd.DataFrame, float]:
    """Return quantiles by bin, and the share of observations between the outer simulated quantiles.

    Values that are NaN, because they are censored, are left out.
    """
    rows, inside = [], np.zeros(len(times), bool)
    for number in np.unique(place):
        here = place == number
        seen = observed[here][np.isfinite(observed[here])]
        drawn = simulated[:, here]
        whole = drawn[np.isfinite(drawn)]
        if whole.size:
            outer = np.quantile(whole, [min(quantiles), max(quantiles)])
            inside[here] = (observed[here] >= outer[0]) & (observed[here] <= outer[1])
        spread = _quantiles(drawn, quantiles)
        rows += [
            {
                "time": float(np.median(times[here])),
                "count": len(seen),
                "quantile": quantile,
                "observed": float(np.quantile(seen, quantile)) if len(seen) else np.nan,
                **band(values, level),
            }
            for quantile, values in zip(quantiles, spread, strict=True)
        ]
    counted = np.isfinite(observed)
    return pd.DataFrame(rows), float(inside[counted].mean()) if counted.any() else np.nan


def _quantiles(values: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """Return the quantiles (quantile, draw) of values (draw, observation), leaving out NaN."""
    missing = np.isnan(values)
    if not missing.any():
        return np.quantile(values, quantiles, axis=1)
    out = np.full((len(quantiles), len(values)), np.nan)
    for row in np.flatnonzero(~missing.all(1)):
        out[:, row] = np.quantile(values[row][~missing[row]], quantiles)
    return out


def share_table(
    times: np.ndarray,
    place: np.ndarray,
    observed: np.ndarray,
    simulated: np.ndarray,
    names: dict[Any, str],
    column: str,
    level: float,
) -> pd.DataFrame:
    """Return a table of the share of observations that have each code, by bin."""
    rows = []
    for number in np.unique(place):
        here = place == number
        rows += [
            {
                "time": float(np.median(times[here])),
                "count": int(here.sum()),
                column: label,
                "observed": float(np.mean(observed[here] == code)),
                **band((simulated[:, here] == code).mean(1), level),
            }
            for code, label in names.items()
        ]
    return pd.DataFrame(rows)


def categories(
    observed: np.ndarray, simulated: np.ndarray
) -> tuple[Callable[[np.ndarray], np.ndarray], dict[int, str]]:
    """Return a function from values to numbers of categories, and the labels of the categories.

    Where there are few different values, each is a category; many (counts) are put in groups with about equal numbers
    of observations.
    """
    values = np.unique(np.concatenate([observed.ravel(), simulated.ravel()]))
    if len(values) <= _MOST_CATEGORIES:
        return lambda x: np.searchsorted(values, x), {k: f"{value:g}" for k, value in enumerate(values)}
    # The upper edge of a group belongs to the group.
    edges = np.unique(np.quantile(observed, _GROUP_ENDS, method="lower"))
    firsts = [values[0], *(edges + 1)]
    labels = [f"{low:g}" if low == high else f"{low:g}-{high:g}" for low, high in zip(firsts, edges, strict=False)]
    labels.append(f"{firsts[-1]:g} or more")
    return lambda x: np.searchsorted(edges, x, side="left"), dict(enumerate(labels))
