"""Codes of missing values, such as -99: read as missing where they are named, pointed out where they are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from hierax.data.checking.problems import Problems
from hierax.data.checking.remedies import MISSING_CODES
from hierax.data.reading.columns import code_key, find_column, to_numbers


def blank_codes(frame: pd.DataFrame, na: Any) -> pd.DataFrame:
    """Return the table with empty cells in place of those that hold one of the codes ``na``.

    Parameters
    ----------
    na : a code, several, or a mapping of column to one of these
        Without a mapping the codes are those of every column but ID.

    Raises
    ------
    ValueError
        A column that is not in the table.
    """
    if na is None:
        return frame
    if isinstance(na, Mapping):
        return _blanked(frame, {find_column(frame, "na", name): codes for name, codes in na.items()})
    return _blanked(frame, {name: na for name in frame.columns if name != "ID" and not str(name).startswith("_")})


def _blanked(frame: pd.DataFrame, codes: Mapping[Any, Any]) -> pd.DataFrame:
    out = {}
    for name, given in codes.items():
        several = isinstance(given, Iterable) and not isinstance(given, str)
        keys = {code_key(code) for code in (given if several else (given,))}
        column = frame[name]
        hit = column.map({value: code_key(value) in keys for value in column.dropna().unique()})
        hit = hit.astype(object).where(hit.notna(), False).astype(bool)
        # Only columns that hold a code change, so that the others keep their type.
        if hit.any():
            out[name] = column.where(~hit)
    return frame.assign(**out)


def note_codes(
    frame: pd.DataFrame, covariates: Iterable[str], labels: Mapping[str, tuple[Any, ...]], notes: Problems
) -> None:
    """Note values that look like codes of missing values: -99, 999 and the like, far from all others of the column."""
    observed = frame["_observed"].astype(bool)
    places = {"DV": observed, "LIMIT": observed & (frame["CENS"] != 0), "AMT": frame["EVID"].isin([1, 4])}
    everywhere = pd.Series(True, index=frame.index)
    places |= {name: everywhere for name in ("TIME", "CMT", "OCC", *covariates)}
    # Most doses have none of these items, so that a code is suspicious even if it is the only value of the column.
    timing = ("RATE", "II", "ADDL")
    places |= {name: frame["EVID"].isin([1, 4]) & (frame[name] != 0) for name in timing if name in frame.columns}
    for name, here in places.items():
        if name not in frame.columns:
            continue
        values = frame[name]
        if name in labels:
            values = values.map(dict(enumerate(labels[name])))
        numbers, _ = to_numbers(values)
        numbers = numbers.where(here)
        there = values[here].notna() & (values[here].astype(object).map(str) != "")
        odd = name in timing or bool((there & numbers[here].isna()).any())
        # These columns are judged strictly: times may be negative, and times and amounts may lie far apart.
        for code in suspects(numbers.dropna().to_numpy(), odd, strict=name in ("TIME", "AMT", *timing)):
            notes.add_rows(
                "missing_code",
                frame,
                numbers == code,
                name,
                f"{code:g} is far from all other values of {name}, and is read as a value like any other; in many "
                f"tables it means that nothing is known.",
                # ``add_rows`` appends the advice for this value: how to name it in na=.
                "leave it if it is a value.",
                shown=values,
            )


def suspects(values: np.ndarray, odd: bool = False, strict: bool = False) -> list[float]:
    """Return the codes among ``values`` that are far from all other values, by more than the range of these.

    With ``odd``, a code is suspicious even if the column has no other number, for example beside text. With ``strict``,
    a negative code among values that are not negative is not suspicious for its sign alone.
    """
    rest = values[~np.isin(values, MISSING_CODES)]
    out = []
    for code in MISSING_CODES:
        if code not in values:
            continue
        if not rest.size:
            # There are no other values to compare with: only negative codes are suspicious by themselves.
            far = odd or (code < 0 and not strict)
        elif code < 0:
            far = (rest.min() >= 0 and not strict) or rest.min() - code > max(np.ptp(rest), 10.0 * strict)
        else:
            far = code - rest.max() > max(np.ptp(rest), abs(rest.max()))
        if far:
            out.append(code)
    return out
