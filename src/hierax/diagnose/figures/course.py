"""Plots of the course of a fit: a search, the phases of SAEM, the bound of VI, Markov chains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hierax.diagnose.figures.figure import BLUE, GREY, INK, RED, new_figure, plain
from hierax.results.fit import Fit
from hierax.results.uncertainty.posterior import elements

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The largest number of parameters that are drawn, each in a panel of its own.
_MOST_PARAMETERS = 24
# Colours of the chains, in turn.
_CHAINS = (BLUE, RED, "#2f855a", "#6b46c1")
# Number of steps of VI in the moving mean of the bound.
_WINDOW = 100
# This share of VI's bounds, the lowest, may lie outside the axis: the first steps start far from the final bound, and
# would otherwise flatten the rest of the curve.
_HIDDEN_SHARE = 0.05


def convergence(fit: Fit) -> Figure:
    """Draw the course of a fit's algorithm.

    For a search, these are the OFV and the standardised gradient over the evaluations of every start; for SAEM, the
    parameters and the complete log likelihood over the iterations, with the exploratory phase shaded; for VI, the bound
    over the steps; for NUTS, the traces, as by :func:`hierax.plot.traces`.

    Parameters
    ----------
    fit : Fit
        A fit by any estimator.

    Returns
    -------
    matplotlib Figure

    Examples
    --------
    >>> figure = hx.plot.convergence(fit)
    """
    if fit.samples is not None and fit.samples.stats:
        return traces(fit)
    if "bound" in fit.history:
        return _bound(fit.history)
    if "phase" in fit.history:
        return _phases(fit)
    return _search(fit.history)


def traces(fit: Fit, *, most: int = _MOST_PARAMETERS) -> Figure:
    """Draw the chains of a fit by NUTS, one panel per parameter, with divergent draws marked below.

    Parameters
    ----------
    fit : Fit
        A fit with Markov chains.
    most : int
        Largest number of parameters to draw.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ValueError
        The fit has no chains.

    Examples
    --------
    >>> figure = hx.plot.traces(sampled)  # doctest: +SKIP
    """
    if fit.samples is None or not fit.samples.stats:
        raise ValueError(
            "There are no traces to draw, because the fit has no chains. Fit by hx.NUTS(), or draw "
            "hx.plot.convergence(fit)."
        )
    shown = dict(list(elements(fit).items())[:most])
    diverging = np.asarray(fit.samples.stats.get("diverging", np.zeros(fit.samples.flat.shape[:2], bool)))
    rows, columns = _grid(len(shown))
    figure, axes = new_figure(rows, columns, 3.4, 2.3)
    for axis, (name, draws) in zip(axes.ravel(), shown.items(), strict=False):
        for chain, values in enumerate(draws):
            axis.plot(values, color=_CHAINS[chain % len(_CHAINS)], lw=0.5, alpha=0.7)
        bad = np.nonzero(diverging)[1]
        axis.plot(bad, np.full(bad.size, 0.02), "|", color=INK, ms=6, transform=axis.get_xaxis_transform())
        axis.set_title(plain(name), fontsize=9)
    for axis in axes.ravel()[len(shown) :]:
        axis.set_visible(False)
    figure.supxlabel("draw", fontsize=10)
    return figure


def _grid(panels: int) -> tuple[int, int]:
    columns = min(max(panels, 1), 3)
    return -(-max(panels, 1) // columns), columns


def _search(history: pd.DataFrame) -> Figure:
    figure, axes = new_figure(1, 2)
    for start, rows in history.groupby("start"):
        gap = rows["ofv"] - history["ofv"].min()
        axes[0, 0].plot(rows["iteration"], gap.clip(lower=1e-9), color=BLUE, lw=1.2, alpha=0.8)
        axes[0, 1].plot(rows["iteration"], rows["gradient"], color=BLUE, lw=1.2, alpha=0.8, label=f"start {start}")
    for axis, label in zip(axes[0], ("OFV above the best", "standardised gradient"), strict=True):
        axis.set(yscale="log", xlabel="evaluation", ylabel=label)
    return figure


def _bound(history: pd.DataFrame) -> Figure:
    figure, axes = new_figure(1, 1, 6.4, 3.6)
    axis, bound = axes[0, 0], history["bound"]
    axis.plot(history["iteration"], bound, color=GREY, lw=0.5, alpha=0.6, label="bound of a step")
    smooth = bound.rolling(min(_WINDOW, max(len(bound) // 4, 1))).mean()
    axis.plot(history["iteration"], smooth, color=BLUE, lw=1.6, label="moving mean")
    there = bound[np.isfinite(bound)]
    if len(there):
        low, high = np.quantile(there, [_HIDDEN_SHARE, 1.0])
        axis.set_ylim(low - 0.1 * (high - low) - 1e-9, high + 0.05 * (high - low) + 1e-9)
    axis.set(xlabel="step", ylabel="bound of the log likelihood")
    axis.legend(fontsize=8, frameon=False)
    return figure


def _phases(fit: Fit) -> Figure:
    history = fit.history
    names = [name for name in fit.layout.names() if name in history][:_MOST_PARAMETERS]
    shown: list[Any] = ["complete", *names]
    rows, columns = _grid(len(shown))
    figure, axes = new_figure(rows, columns, 3.4, 2.3)
    exploring = history.loc[history["phase"] == "exploratory", "iteration"]
    for axis, name in zip(axes.ravel(), shown, strict=False):
        axis.plot(history["iteration"], history[name], color=BLUE, lw=1)
        if len(exploring):
            axis.axvspan(0, exploring.max(), color=GREY, alpha=0.15, lw=0)
        axis.set_title("complete log likelihood" if name == "complete" else plain(name), fontsize=9)
    for axis in axes.ravel()[len(shown) :]:
        axis.set_visible(False)
    figure.supxlabel("iteration (shaded: exploratory phase)", fontsize=10)
    return figure
