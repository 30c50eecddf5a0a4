"""Collecting all problems of a data set, so that they are reported together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from hierax.data.checking.remedies import remedy
from hierax.errors import DataError

FIELDS = ("code", "row", "id", "column", "value", "problem", "fix")


class Problems:
    """A list of data problems that is raised as one :class:`~hierax.errors.DataError`."""

    def __init__(self) -> None:
        self._found: list[pd.DataFrame] = []
        self._told: dict[str, set[int]] = {}

    def add(self, code: str, problem: str, fix: str, *, column: str = "", value: Any = "") -> None:
        """Add one problem of the whole table."""
        row = dict(code=code, row="", id="", column=column, value=_plain(value), problem=problem, fix=fix)
        self._found.append(pd.DataFrame([row], columns=list(FIELDS), dtype=object))

    def add_rows(
        self,
        code: str,
        frame: pd.DataFrame,
        bad: Iterable[bool],
        column: str,
        problem: str,
        fix: str,
        shown: pd.Series | None = None,
    ) -> None:
        """Add the same problem for every row of ``frame`` where ``bad`` holds; ``_row`` is the row of the file.

        A cell is reported once, for the first problem found, because further problems of it are often consequences.
        ``shown`` holds the values that messages show, if the column holds codes instead of these.
        """
        hits = frame.loc[np.asarray(bad, dtype=bool)]
        told = self._told.setdefault(column, set())
        if told:
            hits = hits[~hits["_row"].isin(told)]
        told.update(hits["_row"])
        if not len(hits):
            return
        found = pd.DataFrame({"code": code, "row": hits["_row"].astype(object)})
        found["id"] = [_plain(value) for value in hits["_id"]]
        found["column"] = column
        values = hits[column] if shown is None else shown.loc[hits.index]
        found["value"] = pd.Series([_plain(value) for value in values], index=hits.index, dtype=object)
        found = found.assign(problem=problem)
        found["fix"] = [" ".join((fix, *remedy(column, value))) for value in found["value"]]
        self._found.append(found.astype(object))

    def table(self) -> pd.DataFrame:
        """Return all problems in the order of their rows."""
        if not self._found:
            return pd.DataFrame(columns=list(FIELDS))
        frame = pd.concat(self._found, ignore_index=True)
        order = frame["row"].map(lambda row: row if row != "" else -1)
        return frame.loc[order.sort_values(kind="stable").index].reset_index(drop=True)

    def raise_if_any(self) -> None:
        """Raise all problems together, in the order of their rows."""
        if self._found:
            raise DataError(self.table())


def _plain(value: Any) -> Any:
    """Return numbers without their NumPy wrapping, and 3.0 as 3, so that messages read well."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
