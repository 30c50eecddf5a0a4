"""Plots of the distribution of random effects and of covariates; every function returns a matplotlib figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hierax.diagnose.effects import covariate_effects, drawn_effects, estimated_effects
from hierax.diagnose.figures.figure import BLUE, GREY, INK, RED, new_figure, plain
from hierax.results.fit import Evaluation
from hierax.results.individual import predictions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Shares of the population that the contours enclose.
_CONTOUR_SHARES = (0.25, 0.5, 0.75, 0.95)


def random_effects(fit: Evaluation, *, site: str | None = None, n: int = 20_000, seed: int = 0) -> Figure:
    """Draw the distribution of random effects, with contours for pairs of them, and the subjects' modes.

    Parameters
    ----------
    fit : Fit
        A fit with any distribution of random effects: normal, a flow or a mixture.
    site : str, optional
        The random effect; the first by default.
    n, seed : int
        Number of draws for the densities and contours, and their seed.

    Returns
    -------
    matplotlib.figure.Figure
        The diagonal shows the densities of the draws (line) and of the modes (bars), and the panels below it show
        contours around 25, 50, 75 and 95 % of the population.

    Examples
    --------
    >>> figure = hx.plot.random_effects(fit, n=500)
    """
    drawn, names = drawn_effects(fit, site, n, seed)
    modes = estimated_effects(fit, site)
    size, names = len(names), [plain(name) for name in names]
    figure, axes = new_figure(size, size, 2.9, 2.6)
    limits = np.quantile(np.concatenate([drawn, modes]), [0.002, 0.998], axis=0)
    for row in range(size):
        for column in range(size):
            axis = axes[row, column]
            if column > row:
                axis.set_visible(False)
                continue
            axis.set_xlim(limits[:, column])
            if row == column:
                edges = np.linspace(limits[0, row], limits[1, row], 60)
                axis.hist(modes[:, row], bins=edges[::3], density=True, color=GREY, alpha=0.4, label="modes")
                heights, _ = np.histogram(drawn[:, row], bins=edges, density=True)
                axis.plot(0.5 * (edges[1:] + edges[:-1]), heights, color=BLUE, lw=1.5, label="distribution")
                axis.set_yticks([])
            else:
                axis.set_ylim(limits[:, row])
                axis.scatter(modes[:, column], modes[:, row], s=6, color=GREY, alpha=0.6, lw=0)
                _contours(axis, drawn[:, column], drawn[:, row], limits[:, [column, row]])
            axis.set(xlabel=names[column] if row == size - 1 else "", ylabel=names[row] if column == 0 < row else "")
    axes[0, 0].legend(fontsize=7, frameon=False)
    return figure


def _contours(axis: Any, x: np.ndarray, y: np.ndarray, limits: np.ndarray) -> None:
    """Draw lines of equal density, from a smoothed histogram, that enclose given shares of the draws."""
    from scipy.ndimage import gaussian_filter

    counts, by_x, by_y = np.histogram2d(x, y, bins=70, range=limits.T)
    smooth = gaussian_filter(counts, 1.2)
    sorted_counts = np.sort(smooth.ravel())[::-1]
    total = np.cumsum(sorted_counts) / sorted_counts.sum()
    levels = sorted({float(sorted_counts[np.searchsorted(total, share)]) for share in _CONTOUR_SHARES})
    middle = [0.5 * (edges[1:] + edges[:-1]) for edges in (by_x, by_y)]
    axis.contour(*middle, smooth.T, levels=levels, colors=BLUE, linewidths=1.1)


def covariates(fit: Evaluation, names: Sequence[str] | str, **options: Any) -> Figure:
    """Draw individual parameters against covariates: the subjects' at the modes, and their distribution by the program.

    Parameters
    ----------
    fit : Fit
        Fit of a program whose individual parameters are ``deterministic`` sites.
    names : sequence of str
        Covariates that are one number per subject.
    **options
        Options of :func:`hierax.covariate_effects`. The line is the median, and the band reaches from the 5 % to the
        95 % quantile, of what the parameter would be if all subjects had this value of the covariate.

    Returns
    -------
    matplotlib.figure.Figure
        One row of panels per parameter, and one column per covariate.

    Examples
    --------
    >>> figure = hx.plot.covariates(fit, ['WT'])  # doctest: +SKIP
    """
    table = covariate_effects(fit, names, **options)
    by_covariate, by_parameter = list(table["covariate"].unique()), list(table["parameter"].unique())
    own = predictions(fit.program, fit.pop, fit.params, fit.eta)[1]
    figure, axes = new_figure(len(by_parameter), len(by_covariate), 3.6, 2.8)
    for (name, parameter), rows in table.groupby(["covariate", "parameter"]):
        axis = axes[by_parameter.index(parameter), by_covariate.index(name)]
        x = np.asarray(fit.pop.covariates[str(name)])[fit.rows, 0]
        y = np.asarray(own[str(parameter)])[fit.rows].reshape(len(fit.rows), -1)[:, 0]
        axis.scatter(x, y, s=8, color=GREY, alpha=0.6, lw=0)
        axis.plot(rows["value"], rows["median"], color=RED, lw=1.6)
        axis.fill_between(rows["value"], rows["lower"], rows["upper"], color=RED, alpha=0.18, lw=0)
        axis.set(xlabel=plain(name), ylabel=plain(parameter))
    return figure


def importance(table: pd.DataFrame) -> Figure:
    """Draw what each covariate contributes: ``hx.augment(...).importance``, with two standard errors.

    Parameters
    ----------
    table : pandas.DataFrame
        ``Augmented.importance``, one row per covariate.

    Returns
    -------
    matplotlib Figure

    Examples
    --------
    >>> figure = hx.plot.importance(learned.importance)  # doctest: +SKIP
    """
    rows = table.sort_values("gain")
    figure, axes = new_figure(1, 1, 5.6, 0.9 + 0.32 * len(rows))
    axis = axes[0, 0]
    axis.errorbar(rows["gain"], np.arange(len(rows)), xerr=2 * rows["se"], fmt="o", color=BLUE, ms=5, lw=1.2)
    axis.axvline(0, color=INK, lw=0.8)
    axis.set_yticks(np.arange(len(rows)), [plain(name) for name in rows.index])
    axis.set_xlabel("held-out gain that permutation costs (nats a subject)")
    # The labels of this axis are names of covariates, which need more room than numbers.
    figure.subplots_adjust(left=0.25)
    return figure
