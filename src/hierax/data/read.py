"""Reading NONMEM-style tables into a :class:`~hierax.data.population.Population`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from hierax.data.columns import NUMERIC, clean_numbers, load_table, rename_columns, require, to_numbers
from hierax.data.population import ENDPOINT_CODES, Population
from hierax.data.problems import Problems
from hierax.data.records import build_population

DOSE_ITEMS = ("AMT", "RATE", "II", "ADDL")


def read_nonmem(
    source: str | Path | pd.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    endpoints: Mapping[str, Any] | None = None,
    covariates: Iterable[str] = (),
) -> Population:
    """Read dosing and observation records.

    Parameters
    ----------
    source : path or pandas.DataFrame
        One row a record, with ID, TIME and DV and, as far as there are any, AMT, EVID, CMT, RATE, II, ADDL,
        MDV, DVID, OCC, CENS, LIMIT. Names match in any case. Missing cells are ``.``, empty or NA.
    columns : mapping, optional
        Reserved name → the table's own name, e.g. ``{"DV": "conc"}``.
    endpoints : mapping, optional
        Name of an endpoint → its DVID (its CMT when there is no DVID). Without it, one endpoint ``dv``.
    covariates : iterable of str
        Columns to keep as covariates: ``(subject, 1)`` where constant in every subject, else ``(subject, time)``.

    Returns
    -------
    Population

    Raises
    ------
    DataError
        All problems of the table together; ``.problems`` is a table of them.
    ValueError
        A column that is needed or named is not there.

    Notes
    -----
    EVID is inferred where absent (a record with a non-zero dose item is a dose) and so is MDV (1 on records
    that are no observation). Rows are processed in file order, also at equal TIME.
    """
    covariates = [covariates] if isinstance(covariates, str) else list(covariates)
    frame = rename_columns(load_table(source), columns, covariates)
    require(frame, ["ID", "TIME", "DV", *covariates])
    if not len(frame):
        raise ValueError("The table has no rows, so there is no subject to read. Check the file and its separator.")
    problems = Problems()
    frame["_id"] = frame["ID"]
    _check_ids(frame, problems)
    clean_numbers(frame, [name for name in NUMERIC if name in frame.columns], problems)
    _complete(frame, problems)
    labels = _clean_covariates(frame, covariates, problems)
    names = _endpoint_codes(frame, endpoints, problems, labels)
    _check_records(frame, problems)
    problems.raise_if_any()
    return build_population(frame, names, covariates, labels)


def _check_ids(frame: pd.DataFrame, problems: Problems) -> None:
    problems.add_rows(
        "missing_id", frame, frame["ID"].isna(), "ID", "a record without a subject.", "give every row its ID."
    )
    starts = frame["ID"].ne(frame["ID"].shift())
    again = starts & frame["ID"].where(starts).duplicated() & frame["ID"].notna()
    problems.add_rows(
        "id_returns",
        frame,
        again,
        "ID",
        "this ID comes back after another subject's rows, and rows of a subject must be contiguous.",
        "sort by ID, or give the second block an ID of its own.",
    )


def _complete(frame: pd.DataFrame, problems: Problems) -> None:
    """Fill in the columns that are absent, and EVID and MDV by their rules."""
    for name in ("AMT", "RATE", "II", "ADDL", "SS"):
        frame[name] = frame[name].fillna(0.0) if name in frame.columns else 0.0
    frame["CMT"] = frame["CMT"].fillna(0.0) if "CMT" in frame.columns else 0.0
    dosing = (frame[list(DOSE_ITEMS)] != 0).any(axis=1)
    if "EVID" in frame.columns:
        frame["EVID"] = frame["EVID"].fillna(dosing.astype(float))
    else:
        frame["EVID"] = dosing.astype(float)
    not_observed = frame["EVID"] != 0
    if "MDV" in frame.columns:
        frame["MDV"] = frame["MDV"].fillna(not_observed.astype(float))
    else:
        frame["MDV"] = not_observed.astype(float)
    frame["_observed"] = (frame["EVID"] == 0) & (frame["MDV"] == 0)
    frame["CENS"] = frame["CENS"].fillna(0.0) if "CENS" in frame.columns else 0.0
    problems.add_rows(
        "cens_code",
        frame,
        ~frame["CENS"].isin([-1, 0, 1]),
        "CENS",
        "CENS is 1 (below DV), -1 (above DV) or 0.",
        "use one of these.",
    )


def _clean_covariates(frame: pd.DataFrame, covariates: list[str], problems: Problems) -> dict[str, tuple[Any, ...]]:
    """Check covariates; replace categories by codes in place and return their labels."""
    labels: dict[str, tuple[Any, ...]] = {}
    for name in covariates:
        numbers, missing = to_numbers(frame[name])
        problems.add_rows(
            "missing_covariate",
            frame,
            missing,
            name,
            "the covariate is missing here, and a missing value is not a number.",
            "fill it in, or drop it from covariates=.",
        )
        if numbers.notna().any() or missing.all():
            problems.add_rows(
                "not_a_number",
                frame,
                numbers.isna() & ~missing,
                name,
                f"{name} is a number in other rows.",
                "write a number; or, for categories, let no row be a number.",
            )
            frame[name] = numbers
        else:
            text = frame[name].astype(object).where(~missing)
            categories = sorted(text.dropna().unique(), key=str)
            labels[name] = tuple(categories)
            frame[name] = text.map({label: code for code, label in enumerate(categories)}).astype(float)
    return labels


def _endpoint_codes(
    frame: pd.DataFrame, endpoints: Mapping[str, Any] | None, problems: Problems, labels: dict[str, tuple[Any, ...]]
) -> tuple[str, ...]:
    """Set ``_endpoint``, the index of the endpoint that a record observes, and return the endpoints' names."""
    if endpoints is None:
        seen = frame.loc[frame["_observed"] & (frame["CMT"] > 0), "CMT"]
        if "DVID" not in frame.columns and seen.nunique() > 1:
            raise ValueError(
                f"Observations have CMT {sorted(seen.unique().tolist())} and there is no DVID, so there are several "
                f"endpoints. Name them by their CMT, e.g. endpoints={{'cp': 2, 'pd': 3}}, or drop the CMT column."
            )
        if "DVID" in frame.columns and frame.loc[frame["_observed"], "DVID"].nunique() > 1:
            values = sorted(frame.loc[frame["_observed"], "DVID"].dropna().unique().tolist(), key=str)
            raise ValueError(
                f"DVID has the values {values} on observations, so there are several endpoints. "
                f"Name them, e.g. endpoints={{'cp': {values[0]!r}, 'pd': {values[1]!r}}}."
            )
        frame["_endpoint"] = 0
        return ("dv",)
    by = "DVID" if "DVID" in frame.columns else "CMT"
    if by == "CMT" and (frame["CMT"] == 0).all():
        raise ValueError("endpoints= needs a DVID or a CMT column to tell them apart. Add one, or drop endpoints=.")
    labels[ENDPOINT_CODES] = (by, *endpoints.values())
    codes = {_key(value): index for index, value in enumerate(endpoints.values())}
    found = frame[by].map(lambda value: codes.get(_key(value), -1))
    frame["_endpoint"] = found
    problems.add_rows(
        "unknown_endpoint",
        frame,
        frame["_observed"] & (found < 0),
        by,
        f"an observation of no named endpoint; endpoints={dict(endpoints)}.",
        "add this value to endpoints=, or set MDV=1 on the row.",
    )
    return tuple(endpoints)


def _key(value: Any) -> Any:
    """Match 1, 1.0 and '1' as the same code."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)


def _check_records(frame: pd.DataFrame, problems: Problems) -> None:
    """Check everything that concerns one record, or one record and the one before it."""
    observed = frame["_observed"]

    def check(code: str, bad: pd.Series, column: str, problem: str, fix: str) -> None:
        problems.add_rows(code, frame, bad, column, problem, fix)

    check("missing_time", frame["TIME"].isna(), "TIME", "a record without a time.", "give its TIME.")
    earlier = (frame["TIME"] < frame["TIME"].shift()) & frame["ID"].eq(frame["ID"].shift())
    check(
        "time_decreases",
        earlier,
        "TIME",
        "TIME is less than on the row before, in the same subject.",
        "sort the subject's rows by TIME.",
    )
    unknown = ~frame["EVID"].isin([0, 1, 2, 3, 4])
    check("evid_code", unknown, "EVID", "EVID must be 0, 1 or 2.", "use 0 (observation), 1 (dose) or 2 (other).")
    check(
        "evid_reset",
        frame["EVID"].isin([3, 4]),
        "EVID",
        "resets (EVID 3 and 4) are not read yet.",
        "give the part after the reset an ID of its own.",
    )
    check("mdv_code", ~frame["MDV"].isin([0, 1]), "MDV", "MDV must be 0 or 1.", "use 0 (observed) or 1 (missing).")
    check(
        "dv_missing",
        observed & frame["DV"].isna(),
        "DV",
        "an observation without a value.",
        "give DV, or set MDV=1 or EVID=2 on the row.",
    )
    _check_doses(frame, check)
    if not observed.any():
        problems.add(
            "no_observation",
            "no record of the table is an observation.",
            "check EVID and MDV: an observation has EVID=0 and MDV=0.",
        )


def _check_doses(frame: pd.DataFrame, check: Callable[[str, pd.Series, str, str, str], None]) -> None:
    """Check the dose items of every record."""
    dose = frame["EVID"] == 1
    check("ss", frame["SS"] != 0, "SS", "steady-state doses are not read yet.", "write the earlier doses out (ADDL).")
    items = (frame[list(DOSE_ITEMS)] != 0).any(axis=1)
    check(
        "dose_items",
        (frame["EVID"].isin([0, 2])) & items,
        "AMT",
        "a record that is no dose has a dose item (AMT, RATE, II or ADDL).",
        "set EVID=1, or these columns to 0.",
    )
    check("amt", dose & ~(frame["AMT"] > 0), "AMT", "a dose needs a positive amount.", "give AMT, or EVID=2.")
    check(
        "rate",
        dose & (frame["RATE"] < 0),
        "RATE",
        "RATE must be 0 (bolus) or positive; modelled rates and durations (-1, -2) are not read yet.",
        "give the rate itself.",
    )
    check(
        "addl",
        dose & ((frame["ADDL"] < 0) | (frame["ADDL"] % 1 != 0)),
        "ADDL",
        "ADDL must be a whole number, 0 or more.",
        "give the number of additional doses.",
    )
    check("ii", dose & (frame["ADDL"] > 0) & ~(frame["II"] > 0), "II", "ADDL needs an interval.", "give II > 0.")
    check(
        "cmt",
        (frame["CMT"] < 0) | (frame["CMT"] % 1 != 0),
        "CMT",
        "CMT must be 0 or a positive whole number.",
        "number the compartments from 1; 0 is the model's default.",
    )
