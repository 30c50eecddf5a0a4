"""Checking a table and filling in its columns, whether it was read or made here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from hierax.data.checking.checks import DOSE_ITEMS, check_records
from hierax.data.checking.problems import Problems
from hierax.data.named import ENDPOINT_CODES
from hierax.data.reading.clock import SPANS, clean_times
from hierax.data.reading.columns import (
    NUMERIC,
    clean_numbers,
    code_key,
    is_missing,
)
from hierax.data.reading.covariates import CovariateSpec, clean_covariates
from hierax.data.reading.durations import rates_from_durations
from hierax.data.reading.ids import clean_ids
from hierax.data.reading.restarts import reset_at_restarts
from hierax.data.reading.rxode import translate_rxode


def clean_table(
    frame: pd.DataFrame,
    spec: CovariateSpec,
    problems: Problems,
    endpoints: Mapping[str, Any] | None = None,
    compartments: Mapping[str, int] | None = None,
    units: Mapping[str, str] | None = None,
    *,
    rxode: bool = False,
    period: str | None = None,
) -> tuple[pd.DataFrame, tuple[str, ...], dict[str, tuple[Any, ...]]]:
    """Return a checked copy of a table with every column filled in, its endpoints, and its labels.

    Parameters
    ----------
    rxode : bool
        Whether to translate EVID codes of classic RxODE.
    period : str, optional
        A column at whose changes within a subject the clock restarts and the system is reset.
    """
    frame = clean_ids(frame, problems)
    clean_numbers(frame, [name for name in NUMERIC if name in frame.columns], problems)
    # A column DUR that was named as a covariate is not read as the duration of infusions.
    spans = [name for name in SPANS if name not in spec.columns]
    clean_times(frame, units or {}, problems, spans)
    numbers = _compartment_numbers(frame, compartments, problems)
    if rxode and "EVID" in frame.columns:
        translate_rxode(frame, problems)
    _complete(frame)
    if "DUR" in spans and "DUR" in frame.columns:
        rates_from_durations(frame, problems)
    if period is not None:
        frame = reset_at_restarts(frame, period)
    labels = clean_covariates(frame, spec, problems)
    check_records(frame, problems)
    if endpoints is None:
        # Wrong cells are reported before missing arguments, because only clean cells tell whether endpoints= is needed.
        problems.raise_if_any()
        _refuse_unnamed_endpoints(frame)
        frame["_endpoint"] = 0
        return frame, ("dv",), labels
    return frame, _endpoint_codes(frame, endpoints, numbers, problems, labels), labels


def _complete(frame: pd.DataFrame) -> None:
    """Fill in the columns that are absent, and EVID and MDV by their rules."""
    for name in ("AMT", "RATE", "II", "ADDL", "SS", "CMT", "CENS"):
        frame[name] = frame[name].fillna(0.0) if name in frame.columns else 0.0
    dosing = (frame[list(DOSE_ITEMS)] != 0).any(axis=1).astype(float)
    frame["EVID"] = frame["EVID"].fillna(dosing) if "EVID" in frame.columns else dosing
    not_observed = (frame["EVID"] != 0).astype(float)
    frame["_mdv_given"] = frame["MDV"].notna() if "MDV" in frame.columns else False
    frame["MDV"] = frame["MDV"].fillna(not_observed) if "MDV" in frame.columns else not_observed
    frame["_observed"] = (frame["EVID"] == 0) & (frame["MDV"] == 0)


def _compartment_numbers(
    frame: pd.DataFrame, compartments: Mapping[str, int] | None, problems: Problems
) -> dict[str, int]:
    """Turn names in CMT into numbers, in place; return name → number."""
    names = {str(name).strip(): number for name, number in (compartments or {}).items()}
    bad = {name: number for name, number in names.items() if not isinstance(number, int) or number < 1}
    if bad:
        raise ValueError(
            f"compartments={bad} must give whole numbers of 1 or more. Number the compartments 1, 2, 3, ..."
        )
    if "CMT" not in frame.columns:
        return names
    column = frame["CMT"]
    if column.dtype.kind not in "iuf":
        text = column.astype(object).astype(str).str.strip()
        frame["CMT"] = column.astype(object).where(~text.isin(names), text.map(names))
        unknown = pd.to_numeric(frame["CMT"], errors="coerce").isna() & ~is_missing(column)
        problems.add_rows(
            "cmt_name",
            frame,
            unknown,
            "CMT",
            f"no compartment has this name; compartments={names}.",
            "number the compartments, or name them in compartments={'depot': 1, 'central': 2}.",
        )
        frame["CMT"] = frame["CMT"].where(~unknown)
    clean_numbers(frame, ["CMT"], problems)
    return names


def _endpoint_codes(
    frame: pd.DataFrame,
    endpoints: Mapping[str, Any],
    compartments: Mapping[str, int],
    problems: Problems,
    labels: dict[str, tuple[Any, ...]],
) -> tuple[str, ...]:
    """Set ``_endpoint``, the index of the endpoint that a record observes, and return the endpoints' names."""
    by = "DVID" if "DVID" in frame.columns else "CMT"
    if by == "CMT" and (frame["CMT"] == 0).all():
        raise ValueError("endpoints= needs a DVID or a CMT column to tell them apart. Add one, or drop endpoints=.")
    wanted = [compartments.get(value, value) if by == "CMT" else value for value in endpoints.values()]
    keys = [code_key(value) for value in wanted]
    twice = [name for name, key in zip(endpoints, keys, strict=True) if keys.count(key) > 1]
    if twice:
        raise ValueError(
            f"endpoints= gives {twice} the same {by}, so that only one of them would get its observations. Give every "
            f"endpoint a {by} of its own."
        )
    labels[ENDPOINT_CODES] = (by, *wanted)
    codes = {key: index for index, key in enumerate(keys)}
    found = frame[by].map({value: codes.get(code_key(value), -1) for value in frame[by].dropna().unique()})
    frame["_endpoint"] = found.fillna(-1).astype(int)
    problems.add_rows(
        "unknown_endpoint",
        frame,
        frame["_observed"] & (frame["_endpoint"] < 0),
        by,
        f"the observation belongs to none of the named endpoints; endpoints={dict(endpoints)}.",
        "add this value to endpoints=, or set MDV=1 on the row.",
    )
    return tuple(endpoints)


def _refuse_unnamed_endpoints(frame: pd.DataFrame) -> None:
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
