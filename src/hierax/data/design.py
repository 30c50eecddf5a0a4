"""Populations by hand: from subjects, grids, other regimens and other times."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hierax.data.covariates import CovariateSpec, covariate_spec
from hierax.data.population import ENDPOINT_CODES, OCCASION_LEVELS, Population
from hierax.data.problems import Problems
from hierax.data.read import clean_table, named_compartments
from hierax.data.records import RecordAxis, build_population
from hierax.data.regimen import Regimen, Subject

_DOSE_COLUMNS = {"AMT": 0.0, "EVID": 0, "CMT": 0, "RATE": 0.0, "II": 0.0, "ADDL": 0, "SS": 0}
_RECORD_COLUMNS = {**_DOSE_COLUMNS, "MDV": 1, "DV": np.nan}


def from_subjects(subjects: Sequence[Subject], interpolation: str | None, compartments: Any) -> Population:
    """Build a population; see :meth:`hierax.Population.from_subjects`."""
    if not subjects:
        raise ValueError("from_subjects got no subject. Give at least one.")
    names = list(subjects[0].covariates or {})
    for subject in subjects:
        if set(subject.covariates or {}) != set(names):
            raise ValueError(
                f"Subject {subject.id!r} has covariates {sorted(subject.covariates or {})}, but subject "
                f"{subjects[0].id!r} has {sorted(names)}. Give every subject the same ones."
            )
    endpoints = list(dict.fromkeys(name for subject in subjects for name in subject.observations or {})) or ["dv"]
    vectors = _vector_columns(subjects[0], names)
    scalars = [name for name in names if name not in vectors]
    spec = covariate_spec(scalars, (), vectors, interpolation, "error")
    table = pd.concat([_subject_table(subject, endpoints, vectors, interpolation) for subject in subjects])
    codes = {name: number + 1 for number, name in enumerate(endpoints)}
    return _build(table, spec, codes, compartments)


def from_grid(
    regimens: Any, times: Any, covariates: dict[str, Any], n: int, compartments: Any = None
) -> Population:
    """Build all combinations; see :meth:`hierax.Population.from_grid`."""
    if isinstance(regimens, Regimen):
        named: dict[Any, Regimen] = {"1": regimens}
    else:
        named = dict(regimens) if isinstance(regimens, Mapping) else {str(i + 1): r for i, r in enumerate(regimens)}
    levels = {name: [value] if np.ndim(value) == 0 else list(value) for name, value in covariates.items()}
    subjects = []
    for (label, regimen), *values in itertools.product(named.items(), *levels.values()):
        own = dict(zip(levels, values, strict=True))
        if len(named) > 1:
            own["REGIMEN"] = label
        subjects += [Subject(len(subjects) + 1 + copy, regimen, times, covariates=own) for copy in range(n)]
    return from_subjects(subjects, None, compartments)


def with_regimen(pop: Population, regimen: Any, keep_data: bool, compartments: Any) -> Population:
    """Put other doses in place; see :meth:`hierax.Population.with_regimen`."""
    table = _table(pop)
    by_id = regimen if isinstance(regimen, Mapping) else dict.fromkeys(table["ID"].unique(), regimen)
    lacking = [subject for subject in table["ID"].unique() if subject not in by_id]
    if lacking:
        raise ValueError(f"with_regimen has no regimen for the IDs {lacking[:20]}. Give each subject one.")
    rest = table[table["EVID"].isin([0, 2])]
    back = (rest["TIME"] < rest["TIME"].shift()) & rest["ID"].eq(rest["ID"].shift())
    if back.any():
        raise ValueError(
            f"with_regimen needs one clock a subject, but TIME runs backwards at a reset of subject "
            f"{rest['ID'][back].iloc[0]!r}. Give the parts IDs of their own."
        )
    if not keep_data:
        rest = rest.assign(DV=np.nan, MDV=1)
    parts = []
    for subject in table["ID"].unique():
        own = rest[rest["ID"] == subject]
        frame = by_id[subject].to_frame().assign(MDV=1, ID=subject)
        source = own if len(own) else table[table["ID"] == subject]
        parts.append(_interleave(frame, own, source, pop))
    return _rebuild(pop, pd.concat(parts, ignore_index=True), compartments)


def at_times(pop: Population, times: Any) -> Population:
    """Put records to predict in place of observations; see :meth:`hierax.Population.at_times`."""
    wanted = np.asarray(times, float)
    if wanted.ndim not in (1, 2) or (wanted.ndim == 2 and len(wanted) != len(pop)):
        raise ValueError(
            f"at_times got times of shape {wanted.shape}. Give (time,) for all subjects, or one row for each of the "
            f"{len(pop)} subjects."
        )
    table = _table(pop)
    varying = _changing(pop)
    kept = table[table["EVID"].isin([1, 3, 4]) | bool(varying)]
    kept = kept.assign(EVID=kept["EVID"].where(kept["EVID"] != 0, 2), DV=np.nan, MDV=1)
    parts = []
    for row, subject in enumerate(table["ID"].unique()):
        own = table[table["ID"] == subject]
        new = pd.DataFrame({"TIME": np.sort(wanted if wanted.ndim == 1 else wanted[row])}).assign(ID=subject)
        parts.append(_interleave(kept[kept["ID"] == subject], new.assign(**_RECORD_COLUMNS), own, pop))
    return _rebuild(pop, pd.concat(parts, ignore_index=True), None)


def with_dv(pop: Population, endpoints: Mapping[str, Any]) -> Population:
    """Put observations in place; see :meth:`hierax.Population.with_dv`."""
    unknown = sorted(set(endpoints) - set(pop.dv))
    if unknown:
        raise ValueError(f"with_dv names {unknown}, which are no endpoints; the population has {list(pop.dv)}.")
    dv, mask, records = dict(pop.dv), dict(pop.mask), dict(pop.records)
    shape = np.shape(pop.times)
    evid = np.asarray(records["evid"])
    for name, values in endpoints.items():
        values = np.asarray(values, float)
        if values.shape not in (shape, (len(pop), shape[1])):
            raise ValueError(f"with_dv({name}=...) has shape {values.shape}, but the records are (subject, time) = {shape}.")
        full = np.full(shape, np.nan)
        full[: len(values)] = values
        seen = np.isfinite(full) & np.asarray(pop.record_mask) & np.isin(evid, (0, 2))
        dv[name], mask[name] = np.where(seen, full, 0.0), seen
    observed = np.logical_or.reduce(list(mask.values()))
    if sum(seen.astype(int) for seen in mask.values()).max() > 1:
        raise ValueError("with_dv observes two endpoints at one record, and a record holds one DV. Use NaN for one.")
    records["dv"] = np.where(observed, sum(dv.values()), np.nan)
    records["mdv"] = np.where(observed, 0.0, np.where(np.isnan(evid), np.nan, 1.0))
    records["evid"] = np.where(observed, 0.0, evid)
    return dataclasses.replace(pop, dv=dv, mask=mask, records=records, cens={}, limit={}, censoring=())


# -- tables ------------------------------------------------------------------------------------------------------


def _build(table: pd.DataFrame, spec: CovariateSpec, endpoints: Mapping[str, Any], compartments: Any) -> Population:
    """Build a population from a table made here; what is wrong with it is told as for a table that is read."""
    table = table.reset_index(drop=True).assign(_row=np.arange(len(table)) + 2)
    problems = Problems()
    one = list(endpoints) == ["dv"]
    clean, names, labels = clean_table(table, spec, problems, None if one else endpoints, compartments)
    problems.raise_if_any()
    out = build_population(clean, names, spec, labels)
    return dataclasses.replace(out, compartment_names=named_compartments(compartments))


def _subject_table(
    subject: Subject, endpoints: list[str], vectors: Mapping[str, tuple[str, ...]], interpolation: str | None
) -> pd.DataFrame:
    times = np.atleast_1d(np.asarray(subject.times, float))
    parts = [] if subject.regimen is None else [subject.regimen.to_frame().assign(MDV=1)]
    covariates = dict(subject.covariates or {})
    changes = sorted({float(t) for value in covariates.values() if _varies(value) for t in np.asarray(value[0], float)})
    if changes:
        parts.append(pd.DataFrame({"TIME": changes, "EVID": 2, "MDV": 1}))
    observations = subject.observations or {}
    for number, name in enumerate(endpoints):
        values = np.asarray(observations.get(name, np.full(len(times), np.nan)), float)
        # A time without any value is one record to predict; it stands with the first endpoint.
        nothing = ~np.logical_or.reduce([np.isfinite(np.asarray(v, float)) for v in observations.values()] or [times != times])
        here = np.isfinite(values) | (nothing & (number == 0))
        seen = values[here]
        parts.append(pd.DataFrame({"TIME": times[here], "DV": seen, "MDV": np.isnan(seen).astype(int), "DVID": number + 1}))
    table = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    if not len(table):
        raise ValueError(f"Subject {subject.id!r} has no dose and no time, so there is no record. Give it times.")
    table = table.reindex(columns=["TIME", "DV", *_DOSE_COLUMNS, "MDV", "DVID"])
    table = table.fillna(_DOSE_COLUMNS | {"DVID": 1, "MDV": 1}).sort_values("TIME", kind="stable", ignore_index=True)
    for name, value in covariates.items():
        if name in vectors:
            table = table.assign(**dict(zip(vectors[name], np.asarray(value, float), strict=True)))
        else:
            table[name] = _at(table["TIME"].to_numpy(), *value, interpolation) if _varies(value) else value
    return table.assign(ID=subject.id)


def _varies(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2


def _vector_columns(subject: Subject, names: list[str]) -> dict[str, tuple[str, ...]]:
    covariates = subject.covariates or {}
    return {
        name: tuple(f"{name}_{index + 1}" for index in range(len(covariates[name])))
        for name in names
        if not _varies(covariates[name]) and np.ndim(covariates[name]) == 1
    }


def _at(times: np.ndarray, knots: Any, values: Any, interpolation: str | None) -> np.ndarray:
    """Return a covariate given at ``knots`` at other times, by the interpolation's rule."""
    knots, values = np.asarray(knots, float), np.asarray(values, float)
    if interpolation == "linear":
        return np.interp(times, knots, values)
    after = np.clip(np.searchsorted(knots, times, "left"), 0, len(knots) - 1)
    before = np.clip(np.searchsorted(knots, times, "right") - 1, 0, len(knots) - 1)
    if interpolation == "midpoint":
        nearer = times <= 0.5 * (knots[before] + knots[after])
        return np.where(nearer, values[before], values[after])
    return values[after] if interpolation == "nocb" else values[before]


def _table(pop: Population) -> pd.DataFrame:
    """Return the population's table with the columns that its parts are told apart by."""
    if pop.ids is None:
        raise ValueError("This population has lost its ids, because it came out of a compiled function. Use the original.")
    table = pop.to_frame()
    by, *codes = pop.labels.get(ENDPOINT_CODES, ("DVID", *range(1, len(pop.dv) + 1)))
    return table if len(pop.dv) == 1 or "DVID" in table.columns else table.assign(DVID=table[by])


def _changing(pop: Population) -> list[str]:
    """Return what changes between the records of a subject: covariates and the occasion."""
    names = [name for name, value in pop.covariates.items() if np.ndim(value) == 2 and np.shape(value)[1] > 1]
    occasions = pop.occasion is not None and (np.asarray(pop.occasion) != np.asarray(pop.occasion)[:, :1]).any()
    return names + (["OCC"] if occasions else [])


def _interleave(first: pd.DataFrame, second: pd.DataFrame, source: pd.DataFrame, pop: Population) -> pd.DataFrame:
    """Merge two blocks of a subject's records, ``first`` before ``second`` at equal times.

    Resets in ``first`` are kept in place: a record of ``second`` goes to the last part of the history that starts at
    or before it. What either block lacks (covariates, occasion, endpoint) is taken from ``source`` by the
    population's interpolation.
    """
    part = first["EVID"].isin([3, 4]).cumsum().to_numpy()
    starts = np.array([first["TIME"].to_numpy()[part == number].min() for number in np.unique(part)])
    numbers = np.unique(part)
    times = second["TIME"].to_numpy()
    begun = starts[None, :] <= times[:, None]
    place = np.where(begun.any(1), numbers[len(numbers) - 1 - np.argmax(begun[:, ::-1], axis=1)], numbers.min(initial=0)) if len(numbers) else np.zeros(len(times), int)
    merged = pd.concat([first.assign(_part=part), second.assign(_part=place)], ignore_index=True)
    merged = merged.sort_values(["_part", "TIME"], kind="stable", ignore_index=True).drop(columns="_part")
    merged["ID"] = source["ID"].iloc[0]
    for name in source.columns:
        if name not in merged.columns or (name not in _RECORD_COLUMNS and merged[name].isna().any()):
            own = merged[name] if name in merged.columns else pd.Series(np.nan, index=merged.index, dtype=object)
            merged[name] = own.where(own.notna(), _lookup(source, name, merged["TIME"].to_numpy(), pop.interpolation))
    return merged.infer_objects()


def _lookup(source: pd.DataFrame, name: str, times: np.ndarray, interpolation: str | None) -> pd.Series:
    knots = source["TIME"].to_numpy()
    column = source[name]
    if interpolation == "linear" and column.dtype.kind == "f":
        return pd.Series(_at(times, knots, column, "linear"))
    codes = _at(times, knots, np.arange(len(column)), "locf" if interpolation in (None, "linear") else interpolation)
    return pd.Series(column.to_numpy()[codes.astype(int)])


def _rebuild(pop: Population, table: pd.DataFrame, compartments: Any) -> Population:
    """Build a population anew from a table that came from ``pop``, with its labels, endpoints and extra data."""
    vectors = {name: tuple(f"{name}_{i + 1}" for i in range(np.shape(v)[2])) for name, v in pop.covariates.items() if np.ndim(v) == 3}
    scalars = [name for name in pop.covariates if name not in vectors]
    for name in scalars:
        if name in pop.labels:
            table[name] = table[name].map({label: code for code, label in enumerate(pop.labels[name])})
    spec = covariate_spec(scalars, (), vectors, pop.interpolation, "error")
    codes = pop.labels.get(ENDPOINT_CODES, ("DVID", *range(1, len(pop.dv) + 1)))[1:]
    endpoints = dict(zip(pop.dv, codes, strict=True))
    if len(endpoints) > 1:
        table["DVID"] = table["DVID"].fillna(codes[0])
    out = _build(table, spec, endpoints, dict(compartments or pop.compartment_names))
    n = len(pop)
    labels = {name: value for name, value in pop.labels.items() if name != ENDPOINT_CODES}
    out = dataclasses.replace(
        out,
        data={name: np.asarray(leaf)[:n] for name, leaf in pop.data.items()},
        labels=out.labels | labels,
    )
    if pop.occasion is None:
        return out
    # The codes are those of the old population, also where a level has no record any more.
    levels = {level: index for index, level in enumerate(labels.get(OCCASION_LEVELS, range(pop.n_occasions)))}
    occasion = RecordAxis(table).scatter_hold(table["OCC"].map(levels)).astype(np.int32)
    return dataclasses.replace(out, occasion=occasion, occasion_mask=np.asarray(pop.occasion_mask)[:n])
