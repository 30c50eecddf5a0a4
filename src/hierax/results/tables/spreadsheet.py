"""Tables for spreadsheets, in which no text is a formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

# Characters at the start of a cell by which spreadsheets recognise a formula. They skip tabs and line ends before it,
# so that these count too.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def write_csv(frame: pd.DataFrame, path: str | Path, *, index: bool = True) -> None:
    """Write a table; text that a spreadsheet would run as a formula gets an apostrophe before it.

    Ids and names of columns come from users' data, where ``=HYPERLINK(...)`` may stand. Text that is a number, such as
    the id ``"-1"``, stays what it is.
    """
    out = frame.copy()
    for place in range(frame.shape[1]):
        # By position, because two columns may have the same name.
        values = frame.iloc[:, place]
        if not (pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values)):
            out.isetitem(place, np.array([harmless(value) for value in values.astype(object)], object))
    out.columns = [harmless(name) for name in frame.columns]
    if index:
        out.index = pd.Index([harmless(label) for label in frame.index], name=harmless(frame.index.name))
    out.to_csv(path, index=index)


def harmless(value: Any) -> Any:
    """Return a value that no spreadsheet runs: text that begins like a formula gets an apostrophe before it."""
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
