"""Bins of observation times."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hierax.arguments import whole

# So many different times, each observed in several subjects, are nominal times: the bins.
_NOMINAL = 30
_SHARED = 3
# A time with fewer observations than this part of the usual number joins the nearest nominal time.
_STRAY = 0.25
# Otherwise as many bins as a subject has observations, within these bounds.
_FEWEST, _MOST = 4, 12


def bin_numbers(times: np.ndarray, usual: int, bins: int | Sequence[float] | None) -> np.ndarray:
    """Return the bin of every observation; equal times share a bin.

    Parameters
    ----------
    times : array, (observation,)
    usual : int
        How many observations a subject has.
    bins : int, sequence of float or None
        A number of bins with about the same number of observations, or the edges between bins. None: few different
        times are bins of their own.
    """
    if bins is None:
        nominal = nominal_times(times)
        if nominal is not None:
            return np.searchsorted(0.5 * (nominal[1:] + nominal[:-1]), times, side="right")
        bins = min(max(usual, _FEWEST), _MOST)
    if not isinstance(bins, int | np.integer):
        edges = np.asarray(bins, float)
        if edges.ndim != 1 or not edges.size or not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
            raise ValueError(f"bins={bins!r} are no edges, because these are finite times that increase. Give such.")
        return np.searchsorted(edges, times, side="right")
    whole("bins", bins, 1)
    edges = np.unique(np.quantile(times, np.linspace(0, 1, bins + 1)[1:-1]))
    return np.searchsorted(edges, times, side="right")


def nominal_times(times: np.ndarray) -> np.ndarray | None:
    """Return the times at which most subjects were to be observed, or None where there is no such schedule."""
    distinct, counts = np.unique(times, return_counts=True)
    # The number of observations at the time of the middle observation: strays do not pull it down.
    usual = np.median(np.repeat(counts, counts))
    kept = distinct[counts >= _STRAY * usual]
    scheduled = usual >= _SHARED and len(kept) <= _NOMINAL
    return kept if scheduled and counts[counts >= _STRAY * usual].sum() >= 0.8 * len(times) else None
