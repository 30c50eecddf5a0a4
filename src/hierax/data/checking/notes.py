"""Oddities of a data set that are not errors, reported together in one warning with a table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from hierax.data.checking.problems import Problems
from hierax.data.checking.unused import note_unused
from hierax.data.reading.codes import note_codes
from hierax.data.reading.columns import DATES, code_key
from hierax.data.reading.ids import note_ids
from hierax.errors import DataWarning, tell

# Ratios between time units (h/d, min/h, min/d, s/h). The times of a subject seem to be in another unit if they differ
# from those of the others by one of these ratios, give or take a factor of _NEAR.
_UNIT_RATIOS = (24.0, 60.0, 1440.0, 3600.0)
_NEAR = 1.5


# Adds a note: its code, the rows that it is about, the column, what is odd, and what to do.
Note = Callable[[str, pd.Series, str, str, str], None]


def note_oddities(
    frame: pd.DataFrame, covariates: tuple[str, ...], labels: dict[str, tuple[object, ...]], items: Iterable[str]
) -> None:
    """Warn of everything that is odd in a clean table; ``items`` are the items of records that it came with."""
    notes = Problems()

    def note(code: str, where: pd.Series, column: str, problem: str, fix: str) -> None:
        notes.add_rows(code, frame, where, column, problem, fix)

    _note_records(frame, note)
    _note_reading(frame, note)
    _note_limits(frame, note)
    _note_subjects(frame, note)
    note_ids(frame, notes)
    note_codes(frame, covariates, labels, notes)
    note_unused(frame, items, covariates, notes)
    _note_covariates(frame, covariates, labels, notes)
    table = notes.table()
    if len(table):
        tell(DataWarning(table))


def _note_records(frame: pd.DataFrame, note: Note) -> None:
    """Note rows that occur twice, and items that have no effect on their record."""
    own = [name for name in frame.columns if not str(name).startswith("_")]
    note(
        "duplicate_row",
        frame.duplicated(own),
        "TIME",
        "the row is exactly the same as an earlier one.",
        "delete it if it was entered twice; it counts twice.",
    )
    not_observed = frame["EVID"] != 0
    note(
        "dv_ignored",
        not_observed & frame["DV"].notna() & (frame["DV"] != 0),
        "DV",
        "the record is not an observation, so its DV is ignored.",
        "put the observation on a row of its own (EVID=0).",
    )
    note(
        "mdv_ignored",
        not_observed & (frame["MDV"] == 0) & frame["_mdv_given"],
        "MDV",
        "the record is not an observation, so its MDV of 0 is read as 1.",
        "set MDV=1 there.",
    )
    note(
        "ii_ignored",
        frame["EVID"].isin([1, 4]) & (frame["II"] > 0) & (frame["ADDL"] == 0) & (frame["SS"] == 0),
        "II",
        "an interval (II) without ADDL and SS repeats no dose.",
        "give ADDL or SS, or set II=0.",
    )


def _note_reading(frame: pd.DataFrame, note: Note) -> None:
    """Note times, dates and durations that may have another meaning than the one they are read with."""
    if "_elapsed" in frame.columns:
        note(
            "date_and_elapsed_time",
            frame["_elapsed"],
            "TIME",
            "TIME is a time of the day, since there is a date column, and passes 24 hours.",
            "drop the date column if TIME is already the time since the first record.",
        )
    if "_six_digits" in frame.columns:
        note(
            "date_number",
            frame["_six_digits"],
            next(name for name in DATES if name in frame.columns),
            "a date of six digits is read as a number of days, and all dates of the table could be YYMMDD.",
            "write dates as YYYYMMDD or with separators; leave them if they are numbers of days.",
        )
    if "_dur_idle" in frame.columns:
        note(
            "dur_idle",
            frame["_dur_idle"],
            "DUR",
            "a duration on a record that is not a dose has no effect; on doses it is the duration of an infusion.",
            "set it to 0 there; if the column is no duration of infusions, name it in covariates= or leave it out.",
        )


def _note_limits(frame: pd.DataFrame, note: Note) -> None:
    """Note censored observations whose limit of quantification seems to be missing."""
    quantified = frame["DV"][frame["_observed"] & (frame["CENS"] == 0)]
    note(
        "cens_zero",
        frame["_observed"] & (frame["CENS"] == 1) & (frame["DV"] == 0) & bool(len(quantified) and quantified.min() > 0),
        "DV",
        "the observation is censored below a limit of 0, and all quantified ones are above 0.",
        "give in DV the limit of quantification.",
    )


def _note_subjects(frame: pd.DataFrame, note: Note) -> None:
    """Note subjects without observations or doses, and subjects whose times look like another unit."""
    first = ~frame["_id"].duplicated()
    by = frame["_id"]
    observed = frame["_observed"].groupby(by, sort=False).transform("any")
    note(
        "no_observation_of_subject",
        first & ~observed,
        "EVID",
        "the subject has no observation, so it contributes nothing to the estimates.",
        "leave it if it is there for predictions.",
    )
    dose = frame["EVID"].isin([1, 4])
    dosed = dose.groupby(by, sort=False).transform("any")
    note(
        "no_dose_of_subject",
        first & ~dosed & bool(dose.any()),
        "AMT",
        "the subject has no dose, although other subjects have doses.",
        "leave it if it took a placebo.",
    )
    times = frame["TIME"].groupby(by, sort=False)
    spans = times.max() - times.min()
    gaps = frame["TIME"].diff().where(~first)
    gaps = gaps.where(gaps > 0).groupby(by, sort=False).min()
    if len(spans) < 3 or not spans.median() > 0 or not gaps.median() > 0:
        return
    # A subject is noted if its whole span and its shortest gap both differ from the medians by about the same ratio, in
    # the same direction. Subjects with one record have no span and no gap: the logarithms of these are not finite, so
    # that no comparison with them holds.
    with np.errstate(divide="ignore", invalid="ignore"):
        span, gap = np.log(spans / spans.median()), np.log(gaps / gaps.median())
    same_way = np.sign(span) == np.sign(gap)
    ratios = np.log(_UNIT_RATIOS)
    near = [np.maximum(np.abs(np.abs(span) - r), np.abs(np.abs(gap) - r)) < np.log(_NEAR) for r in ratios]
    odd = same_way & np.logical_or.reduce(near)
    note(
        "time_unit",
        first & by.isin(odd.index[odd]),
        "TIME",
        "the subject's times differ from the other subjects' by about the ratio of two units of time.",
        "check whether they are in the unit (hours, minutes or days) of the others.",
    )


def _alike(labels: Iterable[object]) -> list[object]:
    """Return labels that differ from another one only in capital letters or blanks, or as a number and its text."""
    groups: dict[object, list[object]] = {}
    for label in labels:
        key = code_key(" ".join(label.split()).casefold() if isinstance(label, str) else label)
        groups.setdefault(key, []).append(label)
    return [label for group in groups.values() if len(group) > 1 for label in group]


# Text that looks like a number, with or without a decimal comma and a unit ("70,5", "<0.1", "70 kg"), or like a date.
_NUMBER = re.compile(
    r"[<>~]?\s*[-+]?\d+(?:[.,]\d+)?\s*(?:%|[a-z]{0,6}(?:/[a-z0-9]{1,4})?)"
    r"|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}"
)


def _look_like_numbers(labels: tuple[object, ...]) -> bool:
    """Return whether every label of a covariate is text that looks like a number or a date."""
    return bool(labels) and all(isinstance(one, str) and _NUMBER.fullmatch(one.strip()) for one in labels)


def _note_covariates(
    frame: pd.DataFrame, covariates: tuple[str, ...], labels: dict[str, tuple[object, ...]], notes: Problems
) -> None:
    for name in covariates:
        if _look_like_numbers(labels.get(name, ())):
            notes.add(
                "category_numbers",
                "these labels look like numbers or dates, and are read as categories, in the order of their letters.",
                "for decimal commas, say decimal=','; take units out of the cells; give dates as numbers.",
                column=name,
                value=list(labels[name][:4]),
            )
        alike = _alike(labels.get(name, ()))
        if alike:
            notes.add(
                "category_spelling",
                f"these categories differ only in capital letters or blanks, and are read as {len(alike)} categories.",
                "write them alike if they are one.",
                column=name,
                value=alike,
            )
    if frame["_id"].nunique() < 2:
        return
    for name in covariates:
        if frame[name].nunique() == 1:
            value = frame[name].iloc[0]
            shown = labels[name][int(value)] if name in labels else value
            notes.add(
                "covariate_constant",
                "the covariate has the same value in all subjects, so it explains nothing.",
                "drop it from covariates=.",
                column=name,
                value=shown,
            )
