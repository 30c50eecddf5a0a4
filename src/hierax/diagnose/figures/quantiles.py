"""Quantiles of residuals against those of a standard normal distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.special

from hierax.diagnose.figures.figure import BLUE, GREY, INK, new_figure, plain
from hierax.results.fit import Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def residual_quantiles(fit: Evaluation) -> Figure:
    """Draw the sorted individual weighted residuals of every endpoint against normal quantiles.

    If the error model is right, the points follow the line, except for ε-shrinkage: the residuals of a subject with few
    records are too small. The band is pointwise: if the residuals are independent and standard normal, each point lies
    inside it with a probability of 95 %, so that some points lie outside even under a right model.

    Parameters
    ----------
    fit : Fit or Evaluation
        A fit by any estimator.

    Returns
    -------
    matplotlib Figure
        One panel for each endpoint that has residuals.

    Examples
    --------
    >>> figure = hx.plot.residual_quantiles(fit)
    """
    table = fit.table().dropna(subset=["IWRES"])
    parts = list(table.groupby("ENDPOINT", sort=False))
    figure, axes = new_figure(1, max(len(parts), 1))
    for axis, (name, part) in zip(axes[0], parts, strict=True):
        residuals = np.sort(part["IWRES"].to_numpy(float))
        rank = np.arange(1, len(residuals) + 1)
        expected = scipy.special.ndtri((rank - 0.5) / len(rank))
        # The k-th smallest of n independent uniform numbers follows Beta(k, n − k + 1); its quantiles, on the normal
        # scale, bound the k-th smallest residual.
        low, high = (
            scipy.special.ndtri(scipy.special.betaincinv(rank, len(rank) - rank + 1, tail)) for tail in (0.025, 0.975)
        )
        axis.fill_between(expected, low, high, color=GREY, alpha=0.25, lw=0)
        axis.plot(expected[[0, -1]], expected[[0, -1]], color=INK, lw=1)
        axis.scatter(expected, residuals, s=14, color=BLUE, alpha=0.7, lw=0)
        axis.set(xlabel="normal quantile", ylabel=f"IWRES {plain(name)}".strip())
    return figure
