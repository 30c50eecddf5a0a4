"""Reading NONMEM-style tables into a :class:`~hierax.data.population.Population`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from hierax.data.checking.notes import note_oddities
from hierax.data.checking.problems import Problems
from hierax.data.population import Population
from hierax.data.reading.clean import clean_table
from hierax.data.reading.clock import check_units
from hierax.data.reading.codes import blank_codes
from hierax.data.reading.columns import (
    RESERVED,
    find_column,
    rename_columns,
    require,
)
from hierax.data.reading.covariates import covariate_spec
from hierax.data.reading.records import build_population
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
        One row per record, with ID, TIME and DV and, as far as needed, AMT, EVID, CMT, RATE, DUR (or DURATION,
        TINF), II, ADDL, SS, MDV, DVID, OCC, CENS, LIMIT and DATE (or DAT1, DAT2, DAT3). Names match in any case.
        Missing cells are ``.``, empty or NA. A path to Parquet or to delimited text: UTF-8, UTF-16 or Latin-1, as it is
        or packed by gzip, bzip2 or xz.
    columns : mapping, optional
        Reserved name or name of a covariate → the table's own name, e.g. ``{"DV": "conc", "WEIGHT": "WT"}``.
    endpoints : mapping, optional
        Name of an endpoint → its DVID (its CMT when there is no DVID). Without it, one endpoint ``dv``.
    covariates : iterable of str
        Columns to keep as covariates: ``(subject, 1)`` where constant in every subject, else ``(subject, time)``.
        Columns of text are categories: codes in sorted order, the labels in ``pop.labels``. Names match in any case,
        and the covariate has the name given here.
    categorical : iterable of str, or mapping of str to labels
        Covariates that are categories although they are numbers. If labels are given, they get the codes 0, 1, ... in
        their order, even if a table lacks some: new subjects then have the codes of those that a model was fitted to.
    vectors : mapping, optional
        Name → columns that make one vector per subject, ``(subject, 1, k)``.
    interpolation : {"locf", "nocb", "midpoint", "linear"}, optional
        Rule for the values between two records of a subject, of covariates and of structural parameters that vary: the
        value of the earlier record, of the later one (NONMEM), of the nearer one, or a straight line. There is no
        default: it must be given if a covariate varies.
    missing : {"error", "carry", "median"}, a value, or a mapping of covariate to one of these
        Policy for missing covariates: ``"error"`` refuses them, ``"carry"`` carries the subject's last value forward
        and its first one back, ``"median"`` does the same and takes the median over subjects (for categories the most
        frequent value) where a subject has none; any other value is put in.
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
        Everything that is odd but can be read, in one warning; ``.problems`` is a table of it. Examples are a column
        that is not read although its name has a meaning in such tables (ADM, BLQ, LLOQ, YTYPE, ...), and a value that
        looks like a code of missing values (-99, 999, ...).

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
        raise ValueError(f"evid={evid!r} is not a known coding of EVID. Give 'nonmem' or 'rxode'.")
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
    return build_population(Population, clean, names, spec, labels, compartments)


def _renamed(name: str, columns: Mapping[str, str] | None) -> str:
    """Return the name of a column after the renaming by ``columns``, given its old or its new name."""
    own = {str(given).upper(): item for item, given in (columns or {}).items()}
    return own.get(str(name).upper(), name)
