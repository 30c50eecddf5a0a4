"""Finding and cleaning the columns of a NONMEM-style table."""

from __future__ import annotations

import numbers as abstract
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from hierax.data.checking.problems import Problems

# Names of the columns that are read as items of records.
RESERVED = (
    "ID",
    "TIME",
    "DV",
    "AMT",
    "EVID",
    "CMT",
    "RATE",
    "DUR",
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
# Names that other tools give to some of these items.
_ALSO = {"DURATION": "DUR", "TINF": "DUR"}
# Items of records that may be covariates under their own name: OCC is then read as both, and DUR as a covariate only,
# not as the duration of infusions.
_MAY_BE_COVARIATES = {"OCC", "DUR"}
# Items that must be numbers. The others may be text: names, codes of endpoints, dates, and times as clock times.
NUMERIC = tuple(name for name in RESERVED if name not in ("ID", "DVID", "CMT", "TIME", "II", "DUR", *DATES))
# Cells with these texts are missing values.
MISSING = (".", "", "NA", "NaN", "nan", "<NA>", "None")


def rename_columns(frame: pd.DataFrame, columns: Mapping[str, str] | None, keep: Iterable[str]) -> pd.DataFrame:
    """Return the table with its columns under the names that they are read by.

    ``columns`` takes precedence, then names match in any case. Columns that are not read keep their own names; those
    whose names begin with an underscore are left out, because reading adds columns with such names.
    """
    given, kept = dict(columns or {}), list(keep)
    _check_names(frame, given, kept)
    # A column that ``columns`` names for an item takes precedence over a column that has the name of the item.
    rest = [name for name in frame.columns if name not in given and not str(name).startswith("_")]
    rest = [name for name in rest if name in kept or name not in given.values()]
    out = {role: frame[name] for role, name in given.items()}
    roles: dict[str, list[Any]] = {}
    for name in rest:
        role = _role(name)
        if role is not None and role not in given and name not in kept:
            roles.setdefault(role, []).append(name)
        else:
            out[name] = frame[name]
    for role, names in roles.items():
        # A covariate may already have the name of the item, as DUR beside a column DURATION.
        if len(names) > 1 or role in out:
            raise ValueError(
                f"More than one column is read as {[role]}, because capital and small letters are not told apart in "
                f"names: {[role, *names][-2:]}. Say which with columns={{{role!r}: ...}}."
            )
        out[role] = frame[names[0]]
    for name in kept:
        alike = [other for other in frame.columns if str(other).upper() == name.upper()]
        if name not in out and len(alike) == 1:
            out[name] = frame[alike[0]]
    return pd.DataFrame(out, index=frame.index)


def _check_names(frame: pd.DataFrame, given: Mapping[str, str], kept: list[str]) -> None:
    """Refuse duplicate columns, names that are unknown, and covariates with the names of items of records."""
    twice = sorted({str(name) for name in frame.columns[frame.columns.duplicated()]})
    if twice:
        raise ValueError(f"The table has more than one column named {twice}. Give every column its own name.")
    unknown = sorted(set(given) - set(RESERVED) - set(kept))
    if unknown:
        raise ValueError(
            f"columns= names {unknown}, which Hierax does not read. It reads {list(RESERVED)}, and the covariates that "
            f"are named in covariates=; those are {kept}."
        )
    absent = {role: name for role, name in given.items() if name not in frame.columns}
    if absent:
        raise ValueError(f"columns={absent} are not in the table, which has {_listed(frame)}. Name one of those.")
    own = {str(name) for name in frame.columns}
    taken = sorted(
        name
        for name in set(kept) - _MAY_BE_COVARIATES
        if name in RESERVED or (name not in own and name not in given and _role(name) is not None)
    )
    if taken:
        raise ValueError(
            f"{taken} cannot be covariates, because they are read as items of records. Name a copy of them."
        )
    refuse_underscores(kept)


def refuse_underscores(names: Iterable[str]) -> None:
    """Refuse covariates whose names begin with an underscore, like those of the columns that reading adds."""
    ours = sorted(name for name in names if str(name).startswith("_"))
    if ours:
        raise ValueError(
            f"{ours} cannot be covariates, because names that begin with an underscore are reserved for columns that "
            f"Hierax adds. Give other names: covariates=[{ours[0].lstrip('_')!r}], "
            f"columns={{{ours[0].lstrip('_')!r}: {ours[0]!r}}}."
        )


def _role(name: Any) -> str | None:
    """Return the item of records that a column holds by its name, or None."""
    upper = str(name).strip().upper()
    return upper if upper in RESERVED else _ALSO.get(upper)


def column_of(frame: pd.DataFrame, role: str, given: str | None) -> Any:
    """Return the table's own name of an item, or None if no column or several columns have it."""
    if given is not None:
        return given if given in frame.columns else None
    found = [name for name in frame.columns if _role(name) == role]
    return found[0] if len(found) == 1 else None


def find_column(frame: pd.DataFrame, argument: str, name: str) -> Any:
    """Return the column of this name, in any case.

    Raises
    ------
    ValueError
        There is no such column; the message lists the columns.
    """
    found = [other for other in frame.columns if other == name]
    found = found or [other for other in frame.columns if str(other).upper() == str(name).upper()]
    if len(found) != 1 or str(name).startswith("_"):
        raise ValueError(f"{argument}= names {name!r}, which is no column of the table; it has {_listed(frame)}.")
    return found[0]


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
    """Return a column as floats, NaN where a cell is no finite real number, and which of its cells are missing."""
    if column.dtype.kind in "fiu" or (column.dtype.kind == "b"):
        missing = column.isna()
        numbers = pd.Series(column.to_numpy(dtype=float, na_value=np.nan), index=column.index)
    elif column.dtype.kind in "mM":
        # Dates and spans of time are not numbers here, because pandas would convert them to nanoseconds.
        missing = column.isna()
        numbers = pd.Series(np.nan, index=column.index)
    else:
        missing = is_missing(column)
        cells = column.astype(object)
        numbers = pd.to_numeric(cells.where(~missing & ~cells.map(_is_complex)).map(_real), errors="coerce")
        numbers = numbers.astype(float)
    # Infinite cells become NaN too; since they are not among the missing ones, callers report them.
    return numbers.where(np.isfinite(numbers)), missing


def _is_complex(cell: Any) -> bool:
    return isinstance(cell, abstract.Complex) and not isinstance(cell, abstract.Real) and cell.imag != 0


def _real(cell: Any) -> Any:
    """Return the real part of a complex number, and any other cell as it is."""
    return cell.real if isinstance(cell, abstract.Complex) and not isinstance(cell, abstract.Real) else cell


def is_number(column: pd.Series) -> pd.Series:
    """Return which cells are numbers of any kind, or text that can be read as one."""
    numbers, _ = to_numbers(column)
    return numbers.notna() | column.astype(object).map(lambda cell: isinstance(cell, abstract.Number))


def is_missing(column: pd.Series) -> pd.Series:
    """Return which cells are empty, ``.`` or NA."""
    if column.dtype.kind in "fiubMm":
        return column.isna()
    text = column.astype(object)
    return text.isna() | text.astype(str).str.strip().isin(MISSING)


def require(frame: pd.DataFrame, names: Iterable[str], own: Iterable[Any]) -> None:
    """Refuse a table that lacks a column; ``own`` are the original names of its columns."""
    lacking = [name for name in names if name not in frame.columns]
    if lacking:
        name = lacking[0]
        alike = [str(other) for other in own if str(other).upper() == name.upper()]
        why = (
            f"more than one has that name: {alike}"
            if len(alike) > 1
            else "none has that name, in capital or small letters"
        )
        raise ValueError(
            f"The table has no column {lacking}; of its columns {[str(other) for other in own]}, {why}. "
            f"Say which column it is with columns={{{name!r}: 'your name'}}."
        )


def code_key(value: Any) -> Any:
    """Return a key that is the same for 1, 1.0 and '1'."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value).strip()


def _listed(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame.columns if not str(name).startswith("_")]
