"""Loading a table: delimited text, Parquet, pandas, or any frame that narwhals knows."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hierax.data.columns import MISSING

_SEPARATORS = (",", ";", "\t", "|")
_PARQUET = (".parquet", ".pq")


def load_table(source: Any) -> pd.DataFrame:
    """Read a file, or copy a frame; add ``_row``, the row of the file (header = row 1).

    Delimited text may be separated by commas, semicolons, tabs, bars or blanks; lines that start with ``#``
    are comments, and so is a ``#`` in front of the header itself; in a table whose first column is named C, rows with a
    C there are comments.
    """
    if isinstance(source, str | Path) and Path(source).suffix.lower() not in _PARQUET:
        return _read_text(Path(source))
    if isinstance(source, str | Path):
        frame = _read_parquet(Path(source))
    elif isinstance(source, pd.DataFrame):
        frame = source.reset_index(drop=True)
    else:
        frame = _from_any_frame(source)
    return frame.assign(_row=np.arange(len(frame)) + 2)


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except ImportError as error:
        error.add_note("Reading Parquet needs pyarrow: pip install 'hierax[all]'.")
        raise


def _read_text(path: Path) -> pd.DataFrame:
    encoding = _encoding(path)
    skipped, header = _header(path, encoding)
    if header is None:
        raise ValueError(f"The file {path} has no header line. Write the names of the columns on its first line.")
    separator = next((mark for mark in _SEPARATORS if mark in header), r"\s+")
    cells = next(csv.reader([header], delimiter=separator)) if len(separator) == 1 else header.split()
    names = [name.strip() for name in cells]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"The file {path} has more than one column named {twice}. Give every column its own name.")
    comments = _comment_lines(path, skipped, encoding)
    options: dict[str, Any] = dict(
        sep=separator,
        skiprows=[*range(skipped + 1), *comments],
        na_values=list(MISSING),
        keep_default_na=False,
        skipinitialspace=True,
        low_memory=False,
        skip_blank_lines=False,
        index_col=False,
        encoding=encoding,
    )
    # One column more than there are names: what stands in it was cut off otherwise, without a word.
    beyond = "_beyond"
    try:
        frame = pd.read_csv(path, names=[*names, beyond], **options)
    except pd.errors.ParserError as error:
        raise ValueError(f"The file {path} cannot be split into {len(names)} columns: {error}.") from None
    lines = np.delete(np.arange(len(frame) + len(comments)) + skipped + 2, np.array(comments, int) - skipped - 1)
    frame["_row"] = lines
    if frame[beyond].notna().any():
        row = int(frame.loc[frame[beyond].notna(), "_row"].iloc[0])
        raise ValueError(
            f"Row {row} of {path} has more cells than the header's {len(names)} names. Give every cell a name; numbers "
            f"with decimal commas need another separator, such as a semicolon."
        )
    # Empty lines are no records, but they count as lines of the file. NONMEM's comment rows have C in a column C.
    frame = frame.drop(columns=beyond).dropna(how="all", subset=names)
    if names[0].upper() == "C":
        frame = frame[frame[names[0]].astype(str).str.strip().str.upper() != "C"]
    return frame.reset_index(drop=True)


def _comment_lines(path: Path, skipped: int, encoding: str) -> list[int]:
    """Return the lines after the header that start with ``#``, counted from 0."""
    with path.open(encoding=encoding) as lines:
        return [number for number, line in enumerate(lines) if number > skipped and line.startswith("#")]


def _encoding(path: Path) -> str:
    """Return UTF-8 where the file is UTF-8, and Latin-1, which any file is, elsewhere."""
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for _ in lines:
                pass
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def _header(path: Path, encoding: str) -> tuple[int, str | None]:
    """Return how many lines stand before the header, and the header without a comment sign."""
    with path.open(encoding=encoding) as lines:
        for count, line in enumerate(lines):
            text = line.strip()
            bare = text.lstrip("#").strip()
            heads = bare.upper().replace('"', "").split(",")[0].split()
            if text and (not text.startswith("#") or (heads and heads[0] in ("ID", "C"))):
                return count, bare
    return 0, None


def _from_any_frame(source: Any) -> pd.DataFrame:
    """Turn a frame of another library (polars, pyarrow, modin, DuckDB, ...) into pandas."""
    import narwhals

    try:
        frame = narwhals.from_native(source)
    except TypeError:
        raise ValueError(
            f"The source is a {type(source).__name__}, which is no path and no data frame. Give a path, a pandas "
            f"DataFrame, or a frame that narwhals knows (polars, pyarrow, modin, DuckDB, ...)."
        ) from None
    if isinstance(frame, narwhals.LazyFrame):
        frame = frame.collect()
    return pd.DataFrame({name: frame[name].to_list() for name in frame.columns})
