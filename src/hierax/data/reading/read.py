"""Reading NONMEM-style tables into a :class:`~hierax.data.population.Population`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from hierax.data.checking.checks import DOSE_ITEMS, check_records
from hierax.data.checking.notes import note_oddities
from hierax.data.checking.problems import Problems
from hierax.data.population import ENDPOINT_CODES, Population
from hierax.data.reading.clock import SPANS, check_units, clean_times
from hierax.data.reading.codes import blank_codes
from hierax.data.reading.columns import (
    NUMERIC,
    RESERVED,
    clean_numbers,
    code_key,
    find_column,
    is_missing,
    rename_columns,
    require,
)
from hierax.data.reading.covariates import CovariateSpec, clean_covariates, covariate_spec
from hierax.data.reading.durations import rates_from_durations
from hierax.data.reading.ids import clean_ids
from hierax.data.reading.records import build_population
from hierax.data.reading.restarts import reset_at_restarts
from hierax.data.reading.rxode import translate_rxode
from hierax.data.reading.table import load_table


def read_nonmem(
    source: str | Path | pd.DataFrame | Any,
    *,
    columns: Mapping[str, str] | None = None,
    endpoints: Mapping[str, Any] | None = None,
    covariates: Iterable[str] = (),
    categorical: Iterable[str] | Mapping[str, Iterable[Any]] = (),
    vectors: Mapping[str, Iterable[str]] | None = None,
    interpolation: str | None = None,
    missing: Any = "error",
    compartments: Mapping[str, int] | None = None,
    units: Mapping[str, str] | None = None,
    na: Any = None,
    decimal: str = ".",
    evid: str = "nonmem",
    restarts: str | None = None,
) -> Population:
    """Read dosing and observation records.

    Parameters
    ----------
    source : path, pandas.DataFrame, or a frame that narwhals knows (polars, pyarrow, ...)
        One row a record, with ID, TIME and DV and, as far as there are any, AMT, EVID, CMT, RATE, DUR (or DURATION,
        TINF), II, ADDL, SS, MDV, DVID, OCC, CENS, LIMIT and DATE (or DAT1, DAT2, DAT3). Names match in any case.
        Missing cells are ``.``, empty or NA. A path to Parquet or to delimited text: UTF-8, UTF-16 or Latin-1, as it is
        or packed by gzip, bzip2 or xz.
    columns : mapping, optional
        Reserved name or name of a covariate → the table's own name, e.g. ``{"DV": "conc", "WEIGHT": "WT"}``.
    endpoints : mapping, optional
        Name of an endpoint → its DVID (its CMT when there is no DVID). Without it, one endpoint ``dv``.
    covariates : iterable of str
        Columns to keep as covariates: ``(subject, 1)`` where constant in every subject, else ``(subject, time)``.
        Columns of text are categories: codes in sorted order, the labels in ``pop.labels``. They match in any case, and
        have the name given here.
    categorical : iterable of str, or mapping of str to labels
        Covariates that are categories although they are numbers. With labels, these are the codes 0, 1, ... in their
        order, also where a table lacks some: new subjects then have the codes of those that a model was fitted to.
    vectors : mapping, optional
        Name → columns that make one vector a subject, ``(subject, 1, k)``.
    interpolation : {"locf", "nocb", "midpoint", "linear"}, optional
        What holds between two records of a subject, for covariates and for structural parameters that vary: the
        value of the earlier record, of the later one (NONMEM), of the nearer one, or a straight line. There is no
        default: a covariate that varies needs it named.
    missing : {"error", "carry", "median"}, a value, or a mapping of covariate to one of these
        Policy for missing covariates: refuse; carry the subject's last value forward and the first one back; the same,
        and the median over subjects (categories: the most frequent) where a subject has none; or put this value in.
    compartments : mapping, optional
        Name → number, for a CMT column that holds names.
    units : mapping, optional
        Units of ``TIME``, ``II`` and ``DUR`` (s, min, h, d, wk): II and DUR are converted to the unit of TIME, and
        clock times and dates become times in TIME's unit (hours without it).
    na : a value, several, or a mapping of column to these, optional
        Codes of missing values, e.g. ``-99`` (in all columns but ID) or ``{"DV": [-99, "NS"], "SS": 99}``.
    decimal : {".", ","}
        The decimal mark in cells of text.
    evid : {"nonmem", "rxode"}
        What EVID means. ``"rxode"`` also translates the codes of classic RxODE, as in the data sets of nlmixr: 101 is a
        bolus into compartment 1, 10101 an infusion whose AMT is its rate until a record with minus that rate.
    restarts : str, optional
        A column of periods, such as OCC: where it changes within a subject, the clock starts anew and the system is
        reset, so that nothing is left of the period before. A dose there becomes EVID 4; an observation there gets a
        record with EVID 3 in front.

    Returns
    -------
    Population

    Raises
    ------
    DataError
        All problems of the table together; ``.problems`` is a table of them.
    ValueError
        A column that is needed or named is not there.

    Warns
    -----
    DataWarning
        What is odd but can be read, in one warning; ``.problems`` is a table of it. A column whose name means something
        in such tables (ADM, BLQ, LLOQ, YTYPE, ...) and that is not read is odd, and so is a value that looks like a
        code of missing ones (-99, 999, ...).

    Notes
    -----
    EVID is inferred where absent (a record with a non-zero dose item is a dose) and so is MDV (1 on records
    that are no observation). Rows are processed in file order, also at equal TIME. MDV 100 and 101 keep a record
    out of estimation; it is still predicted. TIME need not start at 0, and may be negative. With clock times or a
    date column, times are those since the subject's first record. A dose with a DUR and no RATE (or 0) is an infusion
    over DUR.

    Examples
    --------
    >>> table = hx.datasets.load('theophylline')
    >>> hx.read_nonmem(table)
    Population(12 subjects, 144 records, 12 doses, observations {dv: 132}, covariates [])
    """
    if evid not in ("nonmem", "rxode"):
        raise ValueError(f"evid={evid!r} names no codes of EVID. Give 'nonmem' or 'rxode'.")
    spec = covariate_spec(covariates, categorical, vectors, interpolation, missing)
    given = check_units(units)
    table, rows = load_table(source, (columns or {}).get("ID"), decimal)
    frame = rename_columns(table, columns, spec.columns).assign(_row=rows)
    require(frame, ["ID", "TIME", "DV", *spec.columns], table.columns)
    if not len(frame):
        raise ValueError("The table has no rows, so there is no subject to read. Check the file and its separator.")
    items = [name for name in RESERVED if name in frame.columns]
    if isinstance(na, Mapping):
        na = {_renamed(name, columns): codes for name, codes in na.items()}
    frame = blank_codes(frame, na)
    period = None if restarts is None else find_column(frame, "restarts", _renamed(restarts, columns))
    problems = Problems()
    clean, names, labels = clean_table(
        frame, spec, problems, endpoints, compartments, given, rxode=evid == "rxode", period=period
    )
    if not clean["_observed"].any():
        problems.add(
            "no_observation",
            "no record of the table is an observation.",
            "check EVID and MDV: an observation has EVID=0 and MDV=0.",
        )
    problems.raise_if_any()
    note_oddities(clean, spec.columns, labels, items)
    return build_population(clean, names, spec, labels, compartments)


def _renamed(name: str, columns: Mapping[str, str] | None) -> str:
    """Return what a column is called after ``columns`` has renamed it; the table's own name stands for it too."""
    own = {str(given).upper(): item for item, given in (columns or {}).items()}
    return own.get(str(name).upper(), name)


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
        A column at whose changes the clock starts anew.
    """
    frame = clean_ids(frame, problems)
    clean_numbers(frame, [name for name in NUMERIC if name in frame.columns], problems)
    # A DUR that was named as a covariate is no duration of infusions.
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
        # What the table lacks is asked for once its cells can be trusted.
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
        raise ValueError(f"compartments={bad} are no numbers of compartments. Number them 1, 2, 3, ...")
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
        f"an observation of no named endpoint; endpoints={dict(endpoints)}.",
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
