"""Clock times, dates and units: everything that turns TIME and II into numbers of one unit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from hierax.data.checking.problems import Problems
from hierax.data.reading.columns import DATES, clean_numbers, is_missing, to_numbers

# Columns that hold spans of time.
SPANS = ("II", "DUR")
# Length of each unit of time, in hours.
UNITS = {"s": 1 / 3600, "min": 1 / 60, "h": 1.0, "d": 24.0, "wk": 168.0}
# The order of day, month and year in each of NONMEM's date columns, where a date does not start with the year.
_ORDER = {"DATE": ("month", "day", "year"), "DAT1": ("day", "month", "year"), "DAT2": ("year", "month", "day")}
_ORDER["DAT3"] = ("year", "day", "month")
# A clock time such as 8:30, 08:30:15 or 8:30 pm, and a time stamp such as 2020-01-31 08:30.
_CLOCK = re.compile(r"^(-?)(\d+):(\d{1,2})(?::(\d{1,2}(?:\.\d*)?))?\s*([AaPp])?[Mm]?$")
_STAMP = re.compile(r"^(\d{4}-\d{1,2}-\d{1,2})[T ](.+)$")
# In hours, about 11 000 years: a time or date of a larger absolute value counts as unreadable.
_LONGEST_HOURS = 1e8
# Separators of day, month and year.
_SPLIT = re.compile(r"[/.\-: ]+")
# What is cut off from dates: the fraction .0, which pandas adds to whole numbers in a column with empty cells, and a
# time of midnight.
_FRACTION, _MIDNIGHT = re.compile(r"^(\d+)\.0*$"), re.compile(r"[T ]0{1,2}:00(:00(\.0*)?)?$")


def check_units(units: Mapping[str, str] | None) -> dict[str, str]:
    """Return the units of TIME, II and DUR; refuse other columns, other units, and units without that of TIME."""
    given = dict(units or {})
    bad = {column: unit for column, unit in given.items() if column not in ("TIME", *SPANS) or unit not in UNITS}
    if bad:
        raise ValueError(f"units={bad} cannot be used. Give TIME, II and DUR units among {sorted(UNITS)}.")
    spans = " and ".join(name for name in SPANS if name in given)
    if spans and "TIME" not in given:
        raise ValueError(
            f"units={given} converts {spans} into the unit of TIME, which is not given. Add 'TIME': 'h', say."
        )
    return given


def clean_times(
    frame: pd.DataFrame, units: Mapping[str, str], problems: Problems, spans: Iterable[str] = SPANS
) -> None:
    """Turn TIME (with a date column or clock times) and spans of time into numbers in TIME's unit, in place.

    As in NM-TRAN, dates and clock times become times since the subject's first record, in hours or TIME's unit.
    """
    hours = 1 / UNITS[units.get("TIME", "h")]
    # Empty cells are marked before the conversion, because they are reported otherwise than cells that cannot be read.
    frame["_time_missing"] = is_missing(frame["TIME"])
    dates = [name for name in DATES if name in frame.columns]
    if len(dates) > 1:
        raise ValueError(f"The table has several date columns {dates}. Keep one of them.")
    if frame["TIME"].dtype.kind == "m":
        frame["TIME"] = _span(frame["TIME"]) * hours
    if dates or _has_clock(frame["TIME"]):
        absolute = _hours(frame, "TIME", problems, stamps=True)
        if dates:
            frame["_elapsed"] = absolute > 24
            absolute = absolute + _dates(frame, dates[0], problems)
        first = absolute.groupby(frame["ID"], sort=False, dropna=False).transform("first")
        # Rounded to microseconds: the difference of two large absolute times has rounding errors of about 1e-11.
        frame["TIME"] = np.round((absolute - first) * 3600, 6) / 3600 * hours
    else:
        clean_numbers(frame, ["TIME"], problems)
    for name in spans:
        if name not in frame.columns:
            continue
        if frame[name].dtype.kind == "m":
            frame[name] = _span(frame[name]) * hours
        elif _has_clock(frame[name]):
            frame[name] = _hours(frame, name, problems, stamps=False) * hours
        else:
            clean_numbers(frame, [name], problems)
            if name in units:
                frame[name] = frame[name] * (UNITS[units[name]] / UNITS[units["TIME"]])


def _span(column: pd.Series) -> pd.Series:
    """Return spans of time, as pandas has them, in hours."""
    spans: Any = column
    return spans / pd.Timedelta(hours=1)


def _has_clock(column: pd.Series) -> bool:
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return True
    return column.dtype.kind not in "fiub" and bool(column.astype(str).str.contains(":", regex=False).any())


def _hours(frame: pd.DataFrame, name: str, problems: Problems, *, stamps: bool) -> pd.Series:
    """Return clock times, decimal hours and (if asked for) time stamps in hours."""
    column = frame[name]
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return _since_epoch(column)
    numbers, missing = to_numbers(column)
    text = column.astype(object).astype(str).str.strip()
    unread = numbers.isna() & ~missing
    parsed = {value: _clock(value, stamps) for value in text[unread].unique()}
    hours = numbers.where(~unread, text.map(parsed).astype(float))
    hours = hours.where(hours.abs() < _LONGEST_HOURS)
    what = "a clock time (hh:mm or hh:mm:ss)" + (", a time stamp (YYYY-MM-DD hh:mm)" if stamps else "")
    problems.add_rows(
        "clock",
        frame,
        hours.isna() & ~missing,
        name,
        f"{name} must be {what} or a number of hours, because other rows are clock times.",
        "write it as hh:mm.",
    )
    return hours


def _clock(text: str, stamps: bool) -> float:
    stamp = _STAMP.match(text)
    if stamp:
        day = _ordinal(stamp.group(1), "DAT2") if stamps else np.nan
        return 24 * day + _clock(stamp.group(2), False)
    found = _CLOCK.match(text)
    if not found or int(found.group(3)) > 59 or float(found.group(4) or 0) >= 60:
        return np.nan
    sign, hours, minutes, seconds, half = found.groups()
    hour = int(hours)
    if half:
        if not 1 <= hour <= 12:
            return np.nan
        hour = hour % 12 + (12 if half in "Pp" else 0)
    value = hour + int(minutes) / 60 + float(seconds or 0) / 3600
    return -value if sign else value


def _dates(frame: pd.DataFrame, name: str, problems: Problems) -> pd.Series:
    """Return a date column in hours since a fixed day."""
    column = frame[name]
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return _since_epoch(column)
    missing = is_missing(column)
    text = column.astype(object).astype(str).str.strip()
    text = text.str.replace(_FRACTION, r"\1", regex=True).str.replace(_MIDNIGHT, "", regex=True)
    parsed = {value: _ordinal(value, name) for value in text[~missing].unique()}
    days = text.map(parsed).astype(float)
    days = days.where(24 * days.abs() < _LONGEST_HOURS)
    frame["_six_digits"] = _six_digits(text[~missing]) & ~missing
    order = "-".join(_ORDER[name])
    problems.add_rows(
        "date",
        frame,
        days.isna() & ~missing,
        name,
        f"{name} must be a date in the order {order}, YYYY-MM-DD, YYYYMMDD, or a day number.",
        "write the date so, or use the column that has its order (DATE, DAT1, DAT2, DAT3).",
        shown=text,
    )
    problems.add_rows(
        "missing_date",
        frame,
        missing,
        name,
        f"the row has no {name}, and other rows have one, so that its time is not known.",
        "give every row its date, or drop the column if TIME is the time since the first record.",
    )
    return days * 24.0


def _six_digits(text: pd.Series) -> bool:
    """Return whether all dates are six digits that could be YYMMDD, which are read as numbers of days."""
    there = pd.Series(text.unique())
    short = there.str.match(r"^\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])$")
    return bool(len(there) and short.all())


def _since_epoch(column: pd.Series) -> pd.Series:
    return (column - pd.Timestamp(0, tz=column.dt.tz)) / pd.Timedelta(hours=1)


def _ordinal(text: str, name: str) -> float:
    """Return a date as a number of days, or NaN if it cannot be read; a single number is taken as a day number."""
    parts = _SPLIT.split(text)
    try:
        if len(parts) == 1 and len(text) == 8 and text.isdigit() and text[:2] in ("19", "20"):
            parts, name = [text[:4], text[4:6], text[6:]], "DAT2"
        if len(parts) == 1:
            return float(text)
        order = ("year", "month", "day") if len(parts[0]) == 4 and name in ("DATE", "DAT1") else _ORDER[name]
        # As in NM-TRAN, dates may lack their year: they are all taken to lie in one year, which is not a leap year.
        fields = dict(zip([part for part in order if len(parts) == 3 or part != "year"], parts, strict=True))
        year = int(fields.get("year", 2001))
        # Two-digit years: NM-TRAN's window, 1951 to 2050.
        year += 0 if year > 99 else (1900 if year > 50 else 2000)
        return float(pd.Timestamp(year, int(fields["month"]), int(fields["day"])).toordinal())
    except (ValueError, OverflowError):
        return np.nan
