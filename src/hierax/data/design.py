"""Populations without a data set: from subjects written by hand, and from grids of regimens and covariates."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hierax.data.checking.problems import Problems
from hierax.data.reading.clean import clean_table
from hierax.data.reading.columns import RESERVED, refuse_underscores
from hierax.data.reading.covariates import CovariateSpec, covariate_spec
from hierax.data.reading.records import build_population
from hierax.data.regimen import Regimen, Subject

if TYPE_CHECKING:
    from hierax.data.population import Population

# The values of the dose columns in a record that is not a dose, and the values of a record that is only predicted.
DOSE_COLUMNS = {"AMT": 0.0, "EVID": 0, "CMT": 0, "RATE": 0.0, "II": 0.0, "ADDL": 0, "SS": 0}
RECORD_COLUMNS = {**DOSE_COLUMNS, "MDV": 1, "DV": np.nan}


def from_subjects(
    kind: type[Population],
    subjects: Sequence[Subject],
    interpolation: str | None,
    compartments: Any,
    copies: int = 1,
    categorical: Any = (),
) -> Population:
    """Build a population with ``copies`` copies of each subject; see :meth:`hierax.Population.from_subjects`."""
    if not subjects:
        raise ValueError("from_subjects got no subject. Give at least one.")
    names = list(subjects[0].covariates or {})
    for subject in subjects:
        _check_covariates(subject, subjects[0])
    endpoints = list(dict.fromkeys(name for subject in subjects for name in subject.observations or {})) or ["dv"]
    vectors = _vector_columns(subjects[0])
    spec = covariate_spec([name for name in names if name not in vectors], categorical, vectors, interpolation, "error")
    unknown = sorted(set(spec.names) - set(names))
    if unknown:
        raise ValueError(
            f"categorical= names {unknown}, which the subjects do not have; they have {names}. Name those."
        )
    tables = [_subject_table(subject, endpoints, vectors, interpolation) for subject in subjects]
    table = pd.concat(_copies(tables, copies) if copies > 1 else tables)
    return build(kind, table, spec, {name: number + 1 for number, name in enumerate(endpoints)}, compartments)


def from_grid(
    kind: type[Population],
    regimens: Any,
    times: Any,
    covariates: dict[str, Any],
    n: int,
    compartments: Any = None,
    categorical: Any = (),
) -> Population:
    """Build all combinations of regimens and covariates; see :meth:`hierax.Population.from_grid`."""
    if isinstance(regimens, Regimen):
        named: dict[Any, Regimen] = {"1": regimens}
    else:
        named = dict(regimens) if isinstance(regimens, Mapping) else {str(i + 1): r for i, r in enumerate(regimens)}
    if len(named) > 1 and "REGIMEN" in covariates:
        raise ValueError(
            "from_grid cannot have a covariate 'REGIMEN' beside several regimens, because it says there which one a "
            "subject has. Name the covariate otherwise."
        )
    levels = {name: [value] if np.ndim(value) == 0 else list(value) for name, value in covariates.items()}
    cells = []
    for (label, regimen), *values in itertools.product(named.items(), *levels.values()):
        own = dict(zip(levels, values, strict=True)) | ({"REGIMEN": label} if len(named) > 1 else {})
        cells.append(Subject(len(cells) + 1, regimen, times, covariates=own))
    return from_subjects(kind, cells, None, compartments, n, categorical)


def _copies(tables: list[pd.DataFrame], n: int) -> list[pd.DataFrame]:
    """Return ``n`` copies of each subject's table, with ids counted from 1."""
    out = []
    for number, table in enumerate(tables):
        rows = table.iloc[np.tile(np.arange(len(table)), n)]
        out.append(rows.assign(ID=np.repeat(number * n + 1 + np.arange(n), len(table))))
    return out


def build(
    kind: type[Population], table: pd.DataFrame, spec: CovariateSpec, endpoints: Mapping[str, Any], compartments: Any
) -> Population:
    """Build a population from a table made here, with the same checks as for a table that is read."""
    table = table.reset_index(drop=True).assign(_row=np.arange(len(table)) + 2)
    problems = Problems()
    one = list(endpoints) == ["dv"]
    clean, names, labels = clean_table(table, spec, problems, None if one else endpoints, compartments)
    problems.raise_if_any()
    return build_population(kind, clean, names, spec, labels, compartments)


def value_at(times: np.ndarray, knots: Any, values: Any, interpolation: str | None) -> np.ndarray:
    """Return values given at the sorted times ``knots`` at other times, by the rule ``interpolation``."""
    knots, values = np.asarray(knots, float), np.asarray(values, float)
    if interpolation == "linear":
        return np.interp(times, knots, values)
    after = np.clip(np.searchsorted(knots, times, "left"), 0, len(knots) - 1)
    before = np.clip(np.searchsorted(knots, times, "right") - 1, 0, len(knots) - 1)
    if interpolation == "midpoint":
        return np.where(times <= 0.5 * (knots[before] + knots[after]), values[before], values[after])
    return values[after] if interpolation == "nocb" else values[before]


def _subject_table(
    subject: Subject, endpoints: list[str], vectors: Mapping[str, tuple[str, ...]], interpolation: str | None
) -> pd.DataFrame:
    """Return the records of one subject in the order of time: doses, changes of covariates, observations."""
    covariates = dict(subject.covariates or {})
    parts = [] if subject.regimen is None else [subject.regimen.to_frame().assign(MDV=1)]
    changes = sorted({float(t) for value in covariates.values() if _varies(value) for t in np.asarray(value[0], float)})
    parts.append(pd.DataFrame({"TIME": changes, "EVID": 2, "MDV": 1}))
    parts += _observations(subject, endpoints)
    parts = [part for part in parts if len(part)]
    if not parts:
        raise ValueError(f"Subject {subject.id!r} has no dose and no time, so there is no record. Give it times.")
    table = pd.concat(parts, ignore_index=True).reindex(columns=["TIME", "DV", *DOSE_COLUMNS, "MDV", "DVID"])
    # CMT must be able to hold text, because a route may be a name.
    route = table["CMT"].astype(object).where(table["CMT"].notna(), DOSE_COLUMNS["CMT"])
    table = table.drop(columns="CMT").fillna(DOSE_COLUMNS | {"DVID": 1, "MDV": 1}).assign(CMT=route)
    table = table.sort_values("TIME", kind="stable", ignore_index=True)
    for name, value in covariates.items():
        if name in vectors:
            table = table.assign(**dict(zip(vectors[name], np.asarray(value, float), strict=True)))
        else:
            at = table["TIME"].to_numpy()
            table[name] = _covariate_at(at, value[0], value[1], interpolation) if _varies(value) else value
    return table.assign(ID=subject.id)


def _check_covariates(subject: Subject, first: Subject) -> None:
    """Refuse covariates that differ between subjects in name or shape, or whose times and values do not match."""
    own, names = subject.covariates or {}, first.covariates or {}
    if set(own) != set(names):
        raise ValueError(
            f"Subject {subject.id!r} has covariates {sorted(own)}, but subject {first.id!r} has {sorted(names)}. "
            f"Give every subject the same ones."
        )
    refuse_underscores(own)
    taken = sorted(set(own) & set(RESERVED) - {"DUR"})
    if taken:
        raise ValueError(
            f"{taken} cannot be covariates, because records have items of these names. Name them otherwise."
        )
    for name, value in own.items():
        if _varies(value):
            if np.ndim(value[0]) != 1 or np.shape(value[0]) != np.shape(value[1]):
                raise ValueError(
                    f"Covariate {name} of subject {subject.id!r} is (times, values) of shapes {np.shape(value[0])} and "
                    f"{np.shape(value[1])}. Give one value a time; write a vector as an array."
                )
        elif np.shape(value) != np.shape(names[name]) and not _varies(names[name]):
            raise ValueError(
                f"Covariate {name} has shape {np.shape(value)} for subject {subject.id!r} and "
                f"{np.shape(names[name])} for subject {first.id!r}. Give all subjects the same."
            )


def _covariate_at(times: np.ndarray, knots: Any, values: Any, interpolation: str | None) -> np.ndarray:
    """Return a covariate at ``times``, given its values at ``knots``, which may be in any order.

    Under linear interpolation, a category keeps its last value, because nothing lies between two categories.
    """
    order = np.argsort(np.asarray(knots, float), kind="stable")
    knots, values = np.asarray(knots, float)[order], np.asarray(values)[order]
    if interpolation == "linear" and values.dtype.kind in "iuf":
        return value_at(times, knots, values, "linear")
    rule = "locf" if interpolation == "linear" else interpolation
    return values[value_at(times, knots, np.arange(len(values)), rule).astype(int)]


def _observations(subject: Subject, endpoints: list[str]) -> list[pd.DataFrame]:
    """Return the records of each endpoint; a time without any value is a record to predict of the first endpoint."""
    times = np.atleast_1d(np.asarray(subject.times, float))
    given = subject.observations or {}
    values = {name: np.asarray(given.get(name, np.full(len(times), np.nan)), float) for name in endpoints}
    nothing = np.logical_and.reduce([np.isnan(value) for value in values.values()])
    parts = []
    for number, value in enumerate(values.values()):
        here = ~np.isnan(value) | (nothing & (number == 0))
        seen = value[here]
        parts.append(pd.DataFrame({"TIME": times[here], "DV": seen, "MDV": 1 * np.isnan(seen), "DVID": number + 1}))
    return parts


def _varies(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2


def _vector_columns(subject: Subject) -> dict[str, tuple[str, ...]]:
    vectors = {
        name: value for name, value in (subject.covariates or {}).items() if not _varies(value) and np.ndim(value) == 1
    }
    return {name: vector_names(name, len(value)) for name, value in vectors.items()}


def vector_names(name: str, size: int) -> tuple[str, ...]:
    """Return the columns that hold a vector covariate in a table."""
    return tuple(f"{name}_{index + 1}" for index in range(size))
