"""Loading a table: delimited text, Parquet, pandas, or any frame that narwhals knows."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hierax.data.reading.columns import MISSING, column_of
from hierax.data.reading.files import is_parquet, read_text

_SEPARATORS = (",", ";", "\t", "|")
_PARQUET = (".parquet", ".pq")
_DECIMAL_COMMA = re.compile(r"^\s*[+-]?\d*,\d+(?:[eE][+-]?\d+)?\s*$")


def load_table(source: Any, ids: str | None = None, decimal: str = ".") -> tuple[pd.DataFrame, pd.Series]:
    """Return the table in a file or frame, and the number of each of its rows in the file (the header is row 1).

    Delimited text may be separated by commas, semicolons, tabs, bars or blanks; lines that start with ``#``
    are comments, and a ``#`` in front of the header itself is ignored. If the first column is named C, rows with a C in
    it are comments.

    Parameters
    ----------
    ids : str, optional
        The column of subjects, if it is not named ID. It is read as text, so that 001 and 1 can be told apart.
    decimal : {".", ","}
        The decimal mark in cells of text.
    """
    if decimal not in (".", ","):
        raise ValueError(f"decimal={decimal!r} must be a decimal mark, '.' or ','.")
    if isinstance(source, str | Path):
        path = Path(source)
        parquet = path.suffix.lower() in _PARQUET or is_parquet(path)
        if not parquet:
            frame, rows = _read_delimited(path, ids)
            return _with_decimal_points(frame, decimal, ids), rows
        frame = _read_parquet(path)
    elif isinstance(source, pd.DataFrame):
        frame = source.reset_index(drop=True)
    else:
        frame = _from_any_frame(source)
    return _with_decimal_points(frame, decimal, ids), pd.Series(np.arange(len(frame)) + 2, index=frame.index)


def _with_decimal_points(frame: pd.DataFrame, decimal: str, ids: str | None) -> pd.DataFrame:
    return _without_decimal_commas(frame, column_of(frame, "ID", ids)) if decimal == "," else frame


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except ImportError as error:
        error.add_note("Reading Parquet needs pyarrow: pip install 'hierax[all]'.")
        raise


def _read_delimited(path: Path, ids: str | None) -> tuple[pd.DataFrame, pd.Series]:
    text = read_text(path)
    lines = text.split("\n")
    skipped, header = _header(lines)
    if header is None:
        raise ValueError(f"The file {path} has no header line. Write the names of the columns on its first line.")
    # The separator is the most frequent mark, because a name such as "DV (mg,L)" may contain another one.
    separator = max(_SEPARATORS, key=header.count) if any(mark in header for mark in _SEPARATORS) else r"\s+"
    cells = next(csv.reader([header], delimiter=separator)) if len(separator) == 1 else header.split()
    names = [name.strip() for name in cells]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"The file {path} has more than one column named {twice}. Give every column its own name.")
    comments = {number for number, line in enumerate(lines) if number > skipped and line.startswith("#")}
    comments = sorted(comments.union(_titles_again(path, lines, skipped)))
    # An additional column catches cells beyond the last name, which pandas would otherwise drop without an error.
    beyond = "more cells than names"
    subject = column_of(pd.DataFrame(columns=names), "ID", ids)
    options: dict[str, Any] = dict(
        sep=separator,
        skiprows=[*range(skipped + 1), *comments],
        na_values=list(MISSING),
        keep_default_na=False,
        skipinitialspace=True,
        low_memory=False,
        skip_blank_lines=False,
        index_col=False,
        dtype=None if subject is None else {subject: str},
    )
    try:
        frame = pd.read_csv(io.StringIO(text), names=[*names, beyond], **options)
    except pd.errors.ParserError as error:
        raise ValueError(f"The file {path} cannot be split into {len(names)} columns: {error}.") from None
    numbers = np.delete(np.arange(len(frame) + len(comments)) + skipped + 2, np.array(comments, int) - skipped - 1)
    rows = pd.Series(numbers, index=frame.index)
    if frame[beyond].notna().any():
        row = int(rows[frame[beyond].notna()].iloc[0])
        raise ValueError(
            f"Row {row} of {path} has more cells than the header's {len(names)} names. Give every cell a name; numbers "
            f"with decimal commas need another separator, such as a semicolon, and decimal=','."
        )
    # Empty lines are dropped only here, because row numbers count them. NONMEM's comment rows have C in a column C.
    frame = frame.drop(columns=beyond).dropna(how="all", subset=names)
    if names[0].upper() == "C":
        frame = frame[frame[names[0]].astype(str).str.strip().str.upper() != "C"]
    if subject is not None:
        frame[subject] = _as_numbers(frame[subject])
    return frame.reset_index(drop=True), rows[frame.index].reset_index(drop=True)


def _as_numbers(ids: pd.Series) -> pd.Series:
    """Return ids as numbers if all of them are, unless one number has several spellings (1 and 001)."""
    text = ids.astype(object).where(ids.notna()).str.strip()
    try:
        numbers = pd.to_numeric(text)
    except (ValueError, TypeError):
        return text.where(text.isna(), ids)
    return numbers if numbers.nunique() == text.nunique() else ids


# Beginning of the title line of a table that NONMEM writes; the names of the columns are on the next line.
_NONMEM_TITLE = "TABLE NO."


def _titles_again(path: Path, lines: list[str], skipped: int) -> list[int]:
    """Return the lines on which NONMEM repeats the title and the names of a long table; refuse a second table."""
    titles = [number for number, line in enumerate(lines) if line.strip().upper().startswith(_NONMEM_TITLE)]
    if len({lines[number].split(":")[0].split()[-1] for number in titles}) > 1:
        raise ValueError(f"The file {path} holds several tables of NONMEM. Give each of them a file of its own.")
    return [number for title in titles if title > skipped for number in (title, title + 1)]


def _header(lines: list[str]) -> tuple[int, str | None]:
    """Return how many lines stand before the header, and the header without a comment sign."""
    for count, line in enumerate(lines):
        text = line.strip()
        if text.upper().startswith(_NONMEM_TITLE):
            continue
        bare = text.lstrip("#").strip()
        heads = bare.upper().replace('"', "").split(",")[0].split()
        if text and (not text.startswith("#") or (heads and heads[0] in ("ID", "C"))):
            return count, bare
    return 0, None


def _without_decimal_commas(frame: pd.DataFrame, ids: str | None) -> pd.DataFrame:
    """Return the table with 1.5 for 1,5 in cells of text; ids are names and stay as they are."""

    def mended(cell: Any) -> Any:
        return cell.replace(",", ".") if isinstance(cell, str) and _DECIMAL_COMMA.match(cell) else cell

    text = [name for name in frame.columns if name != ids and frame[name].dtype.kind not in "fiubcmM"]
    return frame.assign(**{name: frame[name].astype(object).map(mended) for name in text})


def _from_any_frame(source: Any) -> pd.DataFrame:
    """Turn a frame of another library (polars, pyarrow, modin, DuckDB, ...) into pandas."""
    import narwhals

    try:
        frame = narwhals.from_native(source)
    except TypeError:
        raise ValueError(
            f"The source is a {type(source).__name__}, but must be a path or a data frame. Give a path, a pandas "
            f"DataFrame, or a frame that narwhals knows (polars, pyarrow, modin, DuckDB, ...)."
        ) from None
    if isinstance(frame, narwhals.LazyFrame):
        frame = frame.collect()
    return pd.DataFrame({name: frame[name].to_list() for name in frame.columns})
