"""Plots of a fit; every function returns a matplotlib figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hierax.data.population import Population
from hierax.diagnose.figures.curves import fine_predictions
from hierax.diagnose.figures.figure import BLUE, GREY, INK, RED, new_figure, plain
from hierax.diagnose.figures.vpc import draw_vpc
from hierax.diagnose.vpc import VPC
from hierax.diagnose.vpc import vpc as compute_vpc
from hierax.results.fit import Evaluation
from hierax.results.individual import observed_endpoints

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def data(pop: Population, *, endpoint: str | None = None, log: bool = False) -> Figure:
    """Draw the observations of every subject against time, with marks where doses are given.

    Parameters
    ----------
    pop : Population
        The data.
    endpoint : str, optional
        The endpoint to draw; the first without it.
    log : bool
        Whether the axis of the observations is logarithmic.

    Returns
    -------
    matplotlib Figure

    Examples
    --------
    >>> figure = hx.plot.data(pop)
    """
    name = endpoint or next(iter(pop.dv))
    if name not in pop.dv:
        raise ValueError(f"There is no endpoint '{name}' to draw, because the population has {list(pop.dv)}.")
    figure, axes = new_figure(1, 1, 6.4, 4.2)
    axis = axes[0, 0]
    times, values = np.asarray(pop.times), np.asarray(pop.dv[name])
    real = np.asarray(pop.subject_mask)[:, None]
    for row in np.flatnonzero(real):
        seen = np.asarray(pop.mask[name])[row]
        axis.plot(times[row][seen], values[row][seen], color=BLUE, lw=0.8, marker="o", ms=2.5, alpha=0.5)
    doses = np.asarray(pop.events.time)[np.asarray(pop.events.mask) & real]
    if doses.size:
        marks = np.unique(doses)
        axis.plot(marks, np.full(marks.size, 0.0), "|", color=RED, ms=7, transform=axis.get_xaxis_transform())
    axis.set(xlabel="time", ylabel=plain(name), yscale="log" if log else "linear")
    axis.set_title(
        f"{len(pop)} subjects, {int(np.sum(pop.mask[name]))} observations" + ("; red: doses" if doses.size else ""),
        fontsize=9,
    )
    return figure


def observed_predicted(fit: Evaluation) -> Figure:
    """Draw observations against population and individual predictions, one row of panels for each endpoint.

    Parameters
    ----------
    fit : Fit or Evaluation
        A fit by any estimator.

    Returns
    -------
    matplotlib Figure

    Examples
    --------
    >>> figure = hx.plot.observed_predicted(fit)
    """
    table = fit.table().dropna(subset=["DV"])
    names = observed_endpoints(fit)
    figure, axes = new_figure(len(names), 2)
    for row, name in enumerate(names):
        part = table[table["ENDPOINT"] == name]
        for axis, column, label in zip(axes[row], ("PRED", "IPRED"), ("population", "individual"), strict=True):
            axis.scatter(part[column], part["DV"], s=14, color=BLUE, alpha=0.7, lw=0)
            low = min(part[column].min(), part["DV"].min())
            high = max(part[column].max(), part["DV"].max())
            axis.plot([low, high], [low, high], color=INK, lw=1)
            axis.set(xlabel=f"{label} prediction", ylabel=f"observed {plain(name)}")
    return figure


def residuals(fit: Evaluation) -> Figure:
    """Draw individual weighted residuals against time and against predictions.

    Parameters
    ----------
    fit : Fit or Evaluation
        A fit by any estimator.

    Returns
    -------
    matplotlib Figure

    Examples
    --------
    >>> figure = hx.plot.residuals(fit)
    """
    table = fit.table().dropna(subset=["IWRES"])
    figure, axes = new_figure(1, 2)
    for axis, column, label in zip(axes[0], ("TIME", "IPRED"), ("time", "individual prediction"), strict=True):
        axis.scatter(table[column], table["IWRES"], s=14, color=BLUE, alpha=0.7, lw=0)
        axis.axhline(0, color=INK, lw=1)
        for line in (-1.96, 1.96):
            axis.axhline(line, color=GREY, lw=0.8, ls="--")
        axis.set(xlabel=label, ylabel="IWRES")
    return figure


def individual_fits(fit: Evaluation, *, endpoint: str | None = None, most: int = 24) -> Figure:
    """Draw data, individual curves and population curves of the first subjects, each on a fine time grid.

    Parameters
    ----------
    fit : Fit or Evaluation
        A fit by any estimator.
    endpoint : str, optional
        The endpoint to draw; the first without it.
    most : int
        The largest number of subjects to draw.

    Returns
    -------
    matplotlib Figure

    Examples
    --------
    >>> figure = hx.plot.individual_fits(fit)
    """
    names = observed_endpoints(fit)
    name = endpoint or names[0]
    curves = fine_predictions(fit, name, most)
    columns = 4
    rows = -(-len(curves) // columns)
    figure, axes = new_figure(rows, columns, 2.8, 2.2, sharex=True, sharey=True)
    for axis, curve in zip(axes.ravel(), curves, strict=False):
        axis.plot(curve.grid, curve.population, color=GREY, lw=1, ls="--", label="population")
        axis.plot(curve.grid, curve.individual, color=BLUE, lw=1.3, label="individual")
        axis.scatter(curve.times, curve.observed, s=12, color=RED, zorder=3, label="observed")
        axis.set_title(plain(curve.subject), fontsize=9)
    for axis in axes.ravel()[len(curves) :]:
        axis.set_visible(False)
    axes[0, 0].legend(fontsize=7, frameon=False)
    figure.supxlabel("time", fontsize=10)
    figure.supylabel(plain(name), fontsize=10)
    return figure


def vpc(fit: Evaluation | VPC, **options: Any) -> Figure:
    """Draw a visual predictive check: observed statistics (lines) over the intervals of the simulated ones (bands).

    Quantiles of a continuous endpoint share a panel; every category of a discrete one has its own. Where data are
    censored, one more panel compares the shares of censored data.

    Parameters
    ----------
    fit : Fit, Evaluation or VPC
        The fit to simulate from, or a check that :func:`hierax.vpc` returned.
    **options
        Options of :func:`hierax.vpc`.

    Returns
    -------
    matplotlib Figure

    Examples
    --------
    >>> figure = hx.plot.vpc(fit, n=20)
    """
    return draw_vpc(fit if isinstance(fit, VPC) else compute_vpc(fit, **options))
