"""Finding and cleaning the columns of a NONMEM-style table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from hierax.data.problems import Problems

RESERVED = (
    "ID",
    "TIME",
    "DV",
    "AMT",
    "EVID",
    "CMT",
    "RATE",
    "II",
    "ADDL",
    "MDV",
    "DVID",
    "SS",
    "OCC",
    "CENS",
    "LIMIT",
    "DATE",
    "DAT1",
    "DAT2",
    "DAT3",
)
DATES = ("DATE", "DAT1", "DAT2", "DAT3")
# Columns that may hold text: names, categories, dates and clock times.
NUMERIC = tuple(name for name in RESERVED if name not in ("ID", "DVID", "CMT", "TIME", "II", *DATES))
MISSING = (".", "", "NA", "NaN", "nan", "<NA>", "None")


def rename_columns(frame: pd.DataFrame, columns: Mapping[str, str] | None, keep: Iterable[str]) -> pd.DataFrame:
    """Give the reserved columns their upper-case names: first by ``columns``, then by any-case match."""
    given = dict(columns or {})
    unknown = sorted(set(given) - set(RESERVED))
    if unknown:
        raise ValueError(f"columns= names {unknown}, which Hierax does not read. It reads {list(RESERVED)}.")
    absent = {role: name for role, name in given.items() if name not in frame.columns}
    if absent:
        raise ValueError(f"columns={absent} are not in the table, which has {_listed(frame)}. Name one of those.")
    renaming = {name: role for role, name in given.items()}
    kept = set(keep)
    taken = sorted(kept & (set(RESERVED) - {"OCC"}))
    if taken:
        raise ValueError(
            f"{taken} cannot be covariates, because they are read as items of records. Name a copy of them."
        )
    # A column that has a reserved name by itself gives way to the one that was named for it.
    frame = frame.drop(columns=[name for name in given if name in frame.columns and given[name] != name])
    for name in frame.columns:
        role = str(name).upper()
        if name not in renaming and role in RESERVED and role not in given and name not in kept:
            renaming[name] = role
    frame = frame.rename(columns=renaming)
    twice = sorted({str(name) for name in frame.columns[frame.columns.duplicated()]})
    if twice:
        raise ValueError(
            f"More than one column is read as {twice}, because names match in any case. "
            f"Say which with columns={{{twice[0]!r}: ...}}."
        )
    return frame


def clean_numbers(frame: pd.DataFrame, names: Iterable[str], problems: Problems) -> None:
    """Turn columns into floats in place; cells that are neither numbers nor missing become problems."""
    for name in names:
        numbers, missing = to_numbers(frame[name])
        problems.add_rows(
            "not_a_number",
            frame,
            numbers.isna() & ~missing,
            name,
            f"{name} must be a finite number.",
            "write a number, or '.' where there is none.",
        )
        frame[name] = numbers


def to_numbers(column: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Return a column as floats, NaN where a cell is no finite number, and which of its cells are missing."""
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_complex_dtype(column.dtype):
        missing = column.isna()
        numbers = pd.Series(column.to_numpy(dtype=float, na_value=np.nan), index=column.index)
    elif pd.api.types.is_datetime64_any_dtype(column.dtype):
        missing = column.isna()
        numbers = pd.Series(np.nan, index=column.index)
    else:
        missing = is_missing(column)
        numbers = pd.to_numeric(column.astype(object).where(~missing), errors="coerce").astype(float)
    return numbers.where(np.isfinite(numbers)), missing


def is_missing(column: pd.Series) -> pd.Series:
    """Return which cells are empty, ``.`` or NA."""
    if column.dtype.kind in "fiubM":
        return column.isna()
    text = column.astype(object)
    return text.isna() | text.astype(str).str.strip().isin(MISSING)


def require(frame: pd.DataFrame, names: Iterable[str]) -> None:
    """Refuse a table that lacks a column."""
    lacking = [name for name in names if name not in frame.columns]
    if lacking:
        raise ValueError(
            f"The table has no column {lacking}, because none of {_listed(frame)} has that name in any case. "
            f"Say which column it is with columns={{{lacking[0]!r}: 'your name'}}."
        )


def code_key(value: Any) -> Any:
    """Match 1, 1.0 and '1' as the same code."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value).strip()


def _listed(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame.columns if not str(name).startswith("_")]
