"""What all figures share: how they are made, their colours, and text in them."""

from __future__ import annotations

from typing import Any

INK, BLUE, RED, GREY = "#222222", "#2b6cb0", "#c05621", "#8a8a8a"


def new_figure(rows: int = 1, columns: int = 1, width: float = 4.6, height: float = 3.6, **kwargs: Any) -> Any:
    """Return a figure and its axes, (row, column)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Figures are made without pyplot: no global state, no window, nothing to close. Margins are set in inches, because
    # a layout engine would draw every panel several times to measure it.
    figure = Figure(figsize=(width * columns, height * rows))
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **kwargs)
    shared = bool(kwargs.get("sharey"))
    figure.subplots_adjust(
        left=0.72 / (width * columns),
        right=1 - 0.15 / (width * columns),
        bottom=0.55 / (height * rows),
        top=1 - 0.3 / (height * rows),
        wspace=0.08 if shared else 0.75 / (width - 0.75),
        hspace=0.25 if shared else 0.75 / (height - 0.75),
    )
    return figure, axes


def plain(text: object) -> str:
    """Return text with dollar signs escaped, so that Matplotlib does not take it for mathematics.

    Users' names and ids may contain dollar signs. Matplotlib reads the text between two of them as a formula, and fails
    where it is not one.
    """
    return str(text).replace("$", r"\$")
