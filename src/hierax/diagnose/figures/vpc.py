"""Drawing a visual predictive check."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from hierax.diagnose.figures.figure import BLUE, GREY, RED, new_figure, plain
from hierax.diagnose.vpc import VPC

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The largest number of panels in a row.
_COLUMNS = 4


def draw_vpc(check: VPC) -> Figure:
    """Return the figure of a visual predictive check."""
    if check.kind == "proportions":
        return _proportions(check)
    censored = check.censored is not None
    # The panel of the censored share is half as high as that of the quantiles.
    ratios = {"height_ratios": [2, 1], "sharex": True} if censored else {}
    figure, axes = new_figure(2 if censored else 1, 1, 6.4, 3.4 if censored else 4.2, **ratios)
    _draw_quantiles(axes[0, 0], check)
    if check.censored is not None:
        axes[0, 0].set_xlabel("")
        _draw_shares(axes[1, 0], check.censored)
    return figure


def _draw_quantiles(axis: Axes, check: VPC) -> None:
    middle = np.median(check.table["quantile"])
    for codes, marker, label in (((0,), "o", "observed"), ((1, -1), "_", "censored, at its limit")):
        rows = check.observed[check.observed["censored"].isin(codes)]
        if len(rows):
            size, edge = (8, 0) if marker == "o" else (26, 1)
            axis.scatter(rows["time"], rows["dv"], s=size, marker=marker, color=GREY, alpha=0.5, lw=edge, label=label)
    for quantile, rows in check.table.groupby("quantile"):
        centre = quantile == middle
        colour = RED if centre else BLUE
        _band(axis, rows, colour, "-" if centre else "--", f"observed {100 * cast(float, quantile):g} %")
    axis.set(xlabel="time", ylabel=plain(check.endpoint))
    of = "" if check.censored is None else " of quantified values"
    axis.set_title(
        f"{check.n} simulated data sets; bands: {100 * check.level:g} % intervals of their quantiles{of}", fontsize=9
    )
    axis.legend(fontsize=8, frameon=False)


def _draw_shares(axis: Axes, shares: pd.DataFrame) -> None:
    for side, rows in shares.groupby("side"):
        below = side == "below"
        colour = BLUE if below else RED
        _band(axis, rows, colour, "-", f"observed {'below' if below else 'above'} the limit")
    axis.set(xlabel="time", ylabel="share censored", ylim=(-0.03, 1.03))
    axis.legend(fontsize=8, frameon=False)


def _proportions(check: VPC) -> Figure:
    """Draw one panel per category, and one of the share of censored data."""
    labels = list(dict.fromkeys(check.table["category"]))
    panels = len(labels) + (check.censored is not None)
    columns = min(panels, _COLUMNS)
    rows = -(-panels // columns)
    figure, axes = new_figure(rows, columns, 3.1, 2.7, sharex=True, sharey=True)
    every = axes.ravel()
    for axis, label in zip(every, labels, strict=False):
        _band(axis, check.table[check.table["category"] == label], BLUE, "-", "observed")
        axis.set_title(f"{plain(check.endpoint)} = {plain(label)}", fontsize=9)
    if check.censored is not None:
        _draw_shares(every[len(labels)], check.censored)
    for axis in every[panels:]:
        axis.set_visible(False)
    # Only panels with no other panel below them show the times.
    for axis in every[max(panels - columns, 0) : panels]:
        axis.tick_params(labelbottom=True)
    every[0].set_ylim(-0.03, 1.03)
    every[0].legend(fontsize=7, frameon=False)
    figure.supxlabel("time", fontsize=10)
    figure.supylabel("proportion", fontsize=10)
    return figure


def _band(axis: Axes, rows: pd.DataFrame, colour: str, line: str, label: str) -> None:
    axis.fill_between(rows["time"], rows["lower"], rows["upper"], color=colour, alpha=0.22, lw=0)
    # The marker makes a bin visible that lies between two bins without a value, so that no line leads to it.
    axis.plot(rows["time"], rows["observed"], color=colour, lw=1.6, ls=line, marker=".", ms=4, label=label)
