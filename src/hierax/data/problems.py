"""Collecting everything that is wrong with a data set before saying any of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from hierax.errors import DataError

FIELDS = ("code", "row", "id", "column", "value", "problem", "fix")


class Problems:
    """A list of data problems that is raised as one :class:`~hierax.errors.DataError`."""

    def __init__(self) -> None:
        self._found: list[dict[str, Any]] = []

    def add(
        self, code: str, problem: str, fix: str, *, row: Any = "", id: Any = "", column: str = "", value: Any = ""
    ) -> None:
        """Add one problem; ``row`` is the row of the file, the header being row 1."""
        self._found.append(
            dict(code=code, row=row, id=id, column=column, value=_plain(value), problem=problem, fix=fix)
        )

    def add_rows(
        self, code: str, frame: pd.DataFrame, bad: Iterable[bool], column: str, problem: str, fix: str
    ) -> None:
        """Add the same problem for every row of ``frame`` where ``bad`` holds."""
        hits = frame.loc[np.asarray(bad, dtype=bool)]
        for row, subject, value in zip(hits["_row"], hits["_id"], hits[column], strict=True):
            self.add(code, problem, fix, row=int(row), id=_plain(subject), column=column, value=value)

    def raise_if_any(self) -> None:
        """Raise all problems together, in the order of their rows."""
        if self._found:
            frame = pd.DataFrame(self._found, columns=list(FIELDS))
            order = frame["row"].map(lambda row: row if row != "" else -1)
            raise DataError(frame.loc[order.sort_values(kind="stable").index].reset_index(drop=True))


def _plain(value: Any) -> Any:
    """Return numbers without their NumPy wrapping, and 3.0 as 3, so that messages read well."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
