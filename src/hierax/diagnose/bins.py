"""Bins of observation times, for visual predictive checks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hierax.arguments import whole

# Observation times follow a schedule of nominal times, which are then the bins, where there are at most this many of
# them, and where the usual one has at least this many observations.
_MOST_NOMINAL = 30
_LEAST_SHARED = 3
# A time with less than this share of the usual number of observations is not nominal, and joins the nearest one.
_STRAY_SHARE = 0.25
# Without a schedule there are as many bins as a subject usually has observations, within these bounds.
_FEWEST_BINS, _MOST_BINS = 4, 12


def bin_numbers(times: np.ndarray, usual: int, bins: int | Sequence[float] | None) -> np.ndarray:
    """Return the bin of every observation; equal times share a bin.

    Parameters
    ----------
    times : array, (observation,)
        Time of each observation.
    usual : int
        How many observations a subject usually has.
    bins : int, sequence of float or None
        A number of bins with about the same number of observations, or the edges between bins. With None, the nominal
        times are bins of their own, and where there are none, the number of bins follows from ``usual``.
    """
    if bins is None:
        nominal = nominal_times(times)
        if nominal is not None:
            return np.searchsorted(0.5 * (nominal[1:] + nominal[:-1]), times, side="right")
        bins = min(max(usual, _FEWEST_BINS), _MOST_BINS)
    if not isinstance(bins, int | np.integer):
        edges = np.asarray(bins, float)
        if edges.ndim != 1 or not edges.size or not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
            raise ValueError(f"bins={bins!r} must be finite, increasing times, because they are the edges of the bins.")
        return np.searchsorted(edges, times, side="right")
    whole("bins", bins, 1)
    edges = np.unique(np.quantile(times, np.linspace(0, 1, bins + 1)[1:-1]))
    return np.searchsorted(edges, times, side="right")


def nominal_times(times: np.ndarray) -> np.ndarray | None:
    """Return the nominal times at which subjects were observed, or None where the times follow no schedule."""
    distinct, counts = np.unique(times, return_counts=True)
    # The median over observations, not over times: many times with a single observation each do not lower it.
    usual = np.median(np.repeat(counts, counts))
    kept = distinct[counts >= _STRAY_SHARE * usual]
    scheduled = usual >= _LEAST_SHARED and len(kept) <= _MOST_NOMINAL
    return kept if scheduled and counts[counts >= _STRAY_SHARE * usual].sum() >= 0.8 * len(times) else None
