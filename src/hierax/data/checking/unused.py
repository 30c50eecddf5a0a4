"""Notes about columns that are not read although their names have a meaning in pharmacometrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import pandas as pd

from hierax.data.checking.problems import Problems
from hierax.data.reading.columns import code_key, is_missing, to_numbers

# Contents of cells that mean no: a column in which all cells say so needs no note.
_NO = {0.0, "", "0", "n", "no", "f", "false"}


@dataclasses.dataclass(frozen=True)
class _Meaning:
    """What columns of certain names mean in other tools and data sets.

    Attributes
    ----------
    names : tuple of str
        Upper-case names of such columns.
    role : str
        The item of records with this meaning in Hierax, or empty. No note is needed if the table has that item.
    problem, fix : str
        What is lost if the column is not read, and what to do; ``{name}`` in ``fix`` is the column's own name.
    varies : bool
        Whether the column matters only if it has more than one value.
    """

    names: tuple[str, ...]
    role: str
    problem: str
    fix: str
    varies: bool = False


_MEANINGS = (
    _Meaning(
        ("YTYPE", "DVNAME", "DVTYPE", "ANALYTE", "OBSID", "OBSTYPE", "OBSERVATIONTYPE", "ENDPOINT", "PARAMCD"),
        "DVID",
        "the column is not read, so that all observations are of one endpoint.",
        "say columns={{'DVID': '{name}'}} and name the endpoints; or leave the column out of the table.",
        varies=True,
    ),
    _Meaning(
        ("OCCASION", "PERIOD", "VISIT"),
        "OCC",
        "the column is not read, so that there are no occasions.",
        "say columns={{'OCC': '{name}'}} if these are occasions; or leave the column out of the table.",
        varies=True,
    ),
    _Meaning(
        ("DOSE", "AMOUNT"),
        "AMT",
        "the column is not read, so that the table has no amounts.",
        "say columns={{'AMT': '{name}'}} if these are amounts of dose records; if they tell a subject's dose, name it "
        "in covariates=.",
    ),
    _Meaning(
        ("TAU", "INTERVAL", "DOSINT", "DOSINGINTERVAL"),
        "II",
        "the column is not read, so that doses have no interval.",
        "say columns={{'II': '{name}'}} if it is the time between doses.",
    ),
    _Meaning(
        ("INFRATE", "INFUSIONRATE", "RATEINF", "RINF", "DOSERATE", "RATE1", "RATEMGH"),
        "RATE",
        "the column is not read, so that every dose without a duration is a bolus.",
        "say columns={{'RATE': '{name}'}} if these are rates of infusions.",
    ),
    _Meaning(
        (
            *("INFDUR", "INFUSIONDURATION", "DURINF", "DINF", "TINFUSION", "INFTIME", "INFUSIONTIME", "INFUSION"),
            *("TINFUS", "TINFH", "DURH", "DURATIONH", "DURMIN", "DURATIONMIN"),
        ),
        "DUR",
        "the column is not read, so that every dose without a rate is a bolus.",
        "say columns={{'DUR': '{name}'}} if these are durations of infusions.",
    ),
    _Meaning(
        ("NADDL", "ADDLDOSES", "NDOSES", "ADDITIONALDOSES"),
        "ADDL",
        "the column is not read, so that no dose is repeated.",
        "say columns={{'ADDL': '{name}'}} if it counts further doses after the first.",
    ),
    _Meaning(
        ("DATETIME", "DATE1", "DATES", "VISITDATE"),
        "DATE",
        "the column is not read, so that records of several days are read as if they were of one day.",
        "say columns={{'DATE': '{name}'}} if TIME is a clock time on that day; or leave the column out of the table.",
        varies=True,
    ),
    _Meaning(
        ("COMPARTMENT", "COMP", "CPT", "COMPT", "CMTN"),
        "CMT",
        "the column is not read, so that all doses go into compartment 1.",
        "say columns={{'CMT': '{name}'}} if these are compartments.",
        varies=True,
    ),
    _Meaning(
        ("STEADYSTATE", "STEADY", "SSFLAG", "SSDOSE"),
        "SS",
        "the column is not read, so that no dose is at steady state.",
        "say columns={{'SS': '{name}'}} if it marks steady states.",
    ),
    _Meaning(
        ("IGNORE", "IGNORED", "EXCLUDE", "EXCLUDED", "EXCL", "EXCLFL", "OMIT", "DROP", "DELETE", "OUTLIER"),
        "",
        "the column is not read, so that rows it marks count like all others.",
        "drop those rows from the table, or set MDV=1 on them; then leave the column out.",
    ),
    _Meaning(
        ("LAG", "TLAG", "ALAG", "ALAG1", "ALAG2", "F1", "F2", "BIO", "BIOAV", "R1", "R2", "D1", "D2"),
        "",
        "the column is not read, and lag time, bioavailability, rate and duration of doses are arguments of the model.",
        "name it in covariates= and pass it on, as in lag=pop.covariates['{name}']; or leave it out of the table.",
    ),
    _Meaning(
        ("PCMT", "CALL", "CONT", "L2"),
        "",
        "the column is an item of NONMEM that is not read.",
        "leave it out of the table if nothing depends on it.",
        varies=True,
    ),
)
# Names of columns of routes, days, flags of censoring, and limits of quantification, in capital letters and digits.
_ROUTES = ("ADM", "ADMIN", "ADMID", "ROUTE", "ADMINISTRATION")
_DAYS = ("DAY", "STUDYDAY", "DAYS")
_FLAGS = ("CENSORED", "CENSORING", "CENSOR", "CENSFL", "CENSFLAG", "ALQ")
_LOWER, _UPPER = ("LLQ", "LOD", "LLOD"), ("ULQ",)
# The beginnings of longer names of flags and limits, such as BLQFL and LLOQ_CP.
_FLAGS_FROM, _LOWER_FROM, _UPPER_FROM = ("BLQ", "BQL", "BLOQ"), ("LLOQ", "LOQ"), ("ULOQ",)


def note_unused(frame: pd.DataFrame, items: Iterable[str], covariates: Iterable[str], notes: Problems) -> None:
    """Note columns of a clean table that were not read, and that change what the records mean.

    Parameters
    ----------
    items, covariates : iterable of str
        The items of records that the table came with, and what is read as covariates.
    """
    items = set(items)
    read = {str(name).upper() for name in (*items, *covariates)}
    for name in frame.columns:
        if str(name).upper() in read or str(name).startswith("_"):
            continue
        plain = _plain(name)
        if plain in _FLAGS or plain.startswith(_FLAGS_FROM):
            _note_flag(frame, name, items, notes)
        elif plain in _LOWER + _UPPER or plain.startswith(_LOWER_FROM + _UPPER_FROM):
            _note_limit(frame, name, items, plain in _UPPER or plain.startswith(_UPPER_FROM), notes)
        elif plain in _DAYS:
            _note_day(frame, name, items, notes)
        elif plain in _ROUTES:
            _note_route(frame, name, items, notes)
        else:
            _note_meaning(frame, name, items, notes)


def _note_meaning(frame: pd.DataFrame, name: str, items: set[str], notes: Problems) -> None:
    meaning = next((one for one in _MEANINGS if _plain(name) in one.names), None)
    if meaning is None or meaning.role in items:
        return
    if len(set(_said(frame[name]))) > 1 if meaning.varies else _marked(frame[name]).any():
        notes.add("column_unused", meaning.problem, meaning.fix.format(name=name), column=name)


def _note_day(frame: pd.DataFrame, name: str, items: set[str], notes: Problems) -> None:
    """Note a column of days if all times are between 0 and 24, so that they may be clock times in hours."""
    several = frame.groupby("_id")[name].nunique().max() > 1
    if several and "DATE" not in items and frame["TIME"].between(0, 24).all():
        notes.add(
            "column_unused",
            "the column is not read, and no TIME is above 24, so that records of several days may be read as if they "
            "were of one day.",
            "add 24 hours a day to TIME; or leave the column out of the table if TIME goes on from day to day.",
            column=name,
        )


def _note_route(frame: pd.DataFrame, name: str, items: set[str], notes: Problems) -> None:
    """Note a column of routes of administration, unless CMT has the same values on doses."""
    numbers, _ = to_numbers(frame[name])
    dose = frame["EVID"].isin([1, 4])
    same = "CMT" in items and (numbers == frame["CMT"])[dose].all()
    if _marked(frame[name]).any() and not same:
        notes.add(
            "column_unused",
            "the column is not read, so that "
            + ("doses go by CMT alone." if "CMT" in items else "all doses go into compartment 1."),
            f"say columns={{'CMT': '{name}'}} if its values are compartments (names are numbered by compartments=); or "
            f"leave it out of the table.",
            column=name,
        )


def _note_flag(frame: pd.DataFrame, name: str, items: set[str], notes: Problems) -> None:
    """Note flags of censored observations that CENS does not mark as censored."""
    off = frame["_observed"] & _marked(frame[name]) & (frame["CENS"] == 0)
    notes.add_rows(
        "column_unused",
        frame,
        off,
        name,
        "the column is not read, so that these observations count as quantified.",
        f"say columns={{'CENS': '{name}'}}: 1 where the value is below the limit in DV, -1 where it is above, "
        "0 elsewhere.",
    )
    if "CENS" not in items and _marked(frame[name]).any() and not off.any():
        notes.add("column_unused", "the column is not read: no observation is censored.", "give CENS.", column=name)


def _note_limit(frame: pd.DataFrame, name: str, items: set[str], upper: bool, notes: Problems) -> None:
    """Note limits of quantification if an observation at or beyond its limit counts as quantified."""
    numbers, _ = to_numbers(frame[name])
    beyond = frame["DV"] >= numbers if upper else frame["DV"] <= numbers
    code, side = (-1, "above") if upper else (1, "below")
    off = frame["_observed"] & beyond & (frame["CENS"] == 0)
    notes.add_rows(
        "column_unused",
        frame,
        off,
        name,
        f"DV is not {'below' if upper else 'above'} this limit of quantification, which is not read, so that the "
        f"observation counts as quantified.",
        f"give a column CENS: {code} where the value is {side} the limit, with the limit in DV, and 0 elsewhere.",
    )
    if "CENS" not in items and numbers.notna().any() and not off.any():
        notes.add(
            "column_unused",
            "the column is not read, and no observation is censored.",
            f"give a column CENS: {code} where the value is {side} the limit, with the limit in DV; or leave the "
            f"column out of the table if everything was quantified.",
            column=name,
        )


def _plain(name: object) -> str:
    """Return a name in capital letters and digits: STEADY_STATE, Steady State and steady.state become the same."""
    return "".join(sign for sign in str(name).upper() if sign.isalnum())


def _marked(column: pd.Series) -> pd.Series:
    """Return which cells are neither missing nor a way of writing no (0, n, false, ...)."""
    no = column.astype(object).map(lambda cell: code_key(cell) in _NO or str(cell).strip().lower() in _NO)
    return ~is_missing(column) & ~no.astype(bool)


def _said(column: pd.Series) -> np.ndarray:
    values = column.astype(object)[~is_missing(column)]
    return np.array([code_key(value) for value in values.unique()], dtype=object)
