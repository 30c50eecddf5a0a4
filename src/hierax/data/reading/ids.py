"""Finding out which cells of the ID column name the same subject."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import pandas as pd

from hierax.data.checking.problems import Problems
from hierax.data.reading.columns import is_missing

_NUMBER = re.compile(r"^[+-]?\d+(\.\d*)?$")
# Up to this limit, floating-point numbers tell all whole numbers apart.
_EXACT = 2**53


def clean_ids(frame: pd.DataFrame, problems: Problems) -> pd.DataFrame:
    """Return the table with one value of ID per subject, and with ``_code``, a number for each subject.

    Blanks around an ID do not belong to it. ``_spelt`` marks rows whose ID is written otherwise than in the subject's
    first row, and ``_blanks`` those where only blanks around it differ.
    """
    column = frame["ID"]
    frame = frame.assign(_spelt=False, _blanks=False, _id=column)
    if column.dtype.kind not in "iu":
        problems.add_rows(
            "id_digits",
            frame,
            column.map(lambda value: isinstance(value, float) and abs(value) >= _EXACT).astype(bool),
            "ID",
            "the ID has more digits than a floating-point number holds, so that different subjects may look the same.",
            "give IDs as text or as whole numbers, e.g. pd.read_csv(path, dtype={'ID': str}).",
        )
    if column.dtype.kind not in "iuf":
        frame = _from_text(frame, problems)
    problems.add_rows(
        "missing_id", frame, frame["ID"].isna(), "ID", "a record without a subject.", "give every row its ID."
    )
    # Rows are compared by their codes, because long ids could lose their last digits in a conversion to floats.
    frame = frame.assign(_code=pd.factorize(frame["ID"])[0], _id=frame["ID"])
    starts = frame["_code"].ne(frame["_code"].shift())
    again = starts & frame["_code"].where(starts).duplicated() & frame["ID"].notna()
    problems.add_rows(
        "id_returns",
        frame,
        again,
        "ID",
        "this ID occurs again after rows of another subject, but the rows of a subject must be contiguous.",
        "sort by ID, or give the second block an ID of its own.",
    )
    return frame


def _from_text(frame: pd.DataFrame, problems: Problems) -> pd.DataFrame:
    """Return the table with the first spelling of a subject's ID, without blanks around it, in all its rows."""
    raw = frame["ID"].astype(object)
    missing = is_missing(raw)
    text = raw.map(str)
    bare = text.str.strip()
    keys = {value: _key(value) for value in bare[~missing].unique()}
    key = bare.where(~missing).map(keys)
    number = pd.factorize(key)[0]
    named = ~missing
    first = pd.Series(number, index=raw.index)[named].drop_duplicates()
    first_bare, first_text = (
        pd.Series(column[first.index].to_numpy(), index=first.to_numpy()) for column in (bare, text)
    )
    own_bare = pd.Series(number, index=raw.index).map(first_bare)
    own_text = pd.Series(number, index=raw.index).map(first_text)
    padded = named & (_unpadded(bare) != _unpadded(own_bare))
    problems.add_rows(
        "id_zeros",
        frame,
        padded,
        "ID",
        "this ID and another are the same number with and without zeros in front, and it cannot be known whether "
        "they are one subject.",
        "write both alike if they are one subject; give one a letter if they are two.",
        shown=bare,
    )
    frame = frame.assign(
        _spelt=named & (bare != own_bare) & ~padded, _blanks=named & (bare == own_bare) & (text != own_text)
    )
    # If all ids are numbers and one of them has several spellings, the ids become numbers.
    if all(isinstance(value, Decimal) for value in keys.values()) and frame["_spelt"].any():
        whole = all(value == value.to_integral_value() for value in keys.values())
        values = {value: int(one) if whole else float(one) for value, one in keys.items()}
        ids = bare.map(values).astype(object).where(named)
        frame["ID"] = ids.astype(int) if whole and not missing.any() and _fits(values) else ids
        return frame
    original = pd.Series([_stripped(raw[place]) for place in first.index], index=first.to_numpy(), dtype=object)
    frame["ID"] = pd.Series(number, index=raw.index).map(original).astype(object).where(named)
    return frame


def _key(text: str) -> Any:
    """Return text that is a number as an exact decimal number, and any other text as it is."""
    try:
        return Decimal(text) if _NUMBER.match(text) else text
    except InvalidOperation:  # pragma: no cover - the pattern lets numbers through only
        return text


def _unpadded(text: pd.Series) -> pd.Series:
    """Return the digits before the decimal point of numbers, by which 01 and 1 differ, but 1.0 and 1 do not."""
    parts = text.astype(object).where(text.notna(), "").astype(str)
    numbers = parts.str.match(_NUMBER)
    return parts.str.lstrip("+").str.split(".").str[0].where(numbers, "")


def _fits(values: dict[str, Any]) -> bool:
    limits = np.iinfo(np.int64)
    return all(limits.min <= value <= limits.max for value in values.values())


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def note_ids(frame: pd.DataFrame, notes: Problems) -> None:
    """Note subjects whose ID is written in several ways, and IDs that look like another one."""
    notes.add_rows(
        "id_blanks",
        frame,
        frame["_blanks"] & ~frame.duplicated(["_code", "_blanks"]),
        "ID",
        "the ID is written both with and without blanks around it, and is read as one subject.",
        "take the blanks out; give two subjects two names.",
    )
    notes.add_rows(
        "id_spelling",
        frame,
        frame["_spelt"] & ~frame.duplicated(["_code", "_spelt"]),
        "ID",
        "the ID is written in several ways that are the same number (1 and 1.0), and is read as one subject.",
        "write it in one way; give two subjects two names.",
    )
    ids = frame.drop_duplicates("_code")
    alike = ids["ID"].map(lambda value: " ".join(value.split()).casefold() if isinstance(value, str) else None)
    notes.add_rows(
        "id_case",
        ids,
        alike.notna() & alike.duplicated(),
        "ID",
        "this ID differs from another one in capital letters or inner blanks only, and is read as another subject.",
        "write both alike if they are one subject.",
    )
