"""Changes of the regimens, times or observations of an existing population."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hierax.data.design import DOSE_COLUMNS, RECORD_COLUMNS, build, vector_names
from hierax.data.named import ENDPOINT_CODES, OCCASION_LEVELS
from hierax.data.reading.covariates import covariate_spec
from hierax.data.reading.records import RecordAxis
from hierax.data.regimen import Regimen

if TYPE_CHECKING:
    from hierax.data.population import Population


def with_regimen(pop: Population, regimen: Any, keep_data: bool, compartments: Any) -> Population:
    """Return the population with other doses; see :meth:`hierax.Population.with_regimen`."""
    table = _table(pop)
    ids = table["ID"].unique().tolist()
    by_id: Mapping[Any, Any] = regimen if isinstance(regimen, Mapping) else {subject: regimen for subject in ids}
    lacking = [subject for subject in ids if subject not in by_id]
    if lacking:
        raise ValueError(f"with_regimen has no regimen for the IDs {lacking[:20]}. Give each subject one.")
    if not all(isinstance(by_id[subject], Regimen) for subject in ids):
        raise ValueError("with_regimen takes a Regimen, or a mapping of id to Regimen. Make one with hx.Regimen(...).")
    varies = _varies(pop)
    rest = table if varies else table[table["EVID"].isin([0, 2])]
    if varies:
        # The records of the old doses stay, without the doses, because covariates change at them.
        dosing = ~rest["EVID"].isin([0, 2])
        rest = rest.assign(**{name: rest[name].where(~dosing, value) for name, value in DOSE_COLUMNS.items()})
        rest["EVID"] = rest["EVID"].where(~dosing, 2)
    back = (rest["TIME"] < rest["TIME"].shift()) & rest["ID"].eq(rest["ID"].shift())
    if back.any():
        raise ValueError(
            f"with_regimen needs one clock a subject, but TIME runs backwards at a reset of subject "
            f"{rest['ID'][back].tolist()[0]!r}. Give the parts before and after the reset IDs of their own."
        )
    if not keep_data:
        rest = rest.assign(DV=np.nan, MDV=1, CENS=0)
    different = {id(one): one for one in by_id.values()}
    frames = {key: one.to_frame().assign(MDV=1) for key, one in different.items()}
    doses = pd.concat([frames[id(by_id[subject])] for subject in ids], ignore_index=True)
    doses["ID"] = np.repeat(np.array(ids, dtype=object), [len(frames[id(by_id[subject])]) for subject in ids])
    return _rebuild(pop, _interleave(doses, rest, rest if varies else table, pop), compartments)


def at_times(pop: Population, times: Any) -> Population:
    """Return the population with other times, to be predicted; see :meth:`hierax.Population.at_times`."""
    wanted = np.asarray(times, float)
    if wanted.ndim not in (1, 2) or (wanted.ndim == 2 and len(wanted) != len(pop)):
        raise ValueError(
            f"at_times got times of shape {wanted.shape}. Give (time,) for all subjects, or one row for each of the "
            f"{len(pop)} subjects."
        )
    if not wanted.size or not np.isfinite(wanted).all():
        raise ValueError(
            f"at_times got {'no times' if not wanted.size else 'times that are no finite numbers'}. Give the times at "
            f"which to predict, such as np.linspace(0, 24, 49)."
        )
    table = _table(pop)
    kept = table[table["EVID"].isin([1, 3, 4]) | _varies(pop)]
    kept = kept.assign(EVID=kept["EVID"].where(kept["EVID"] != 0, 2), DV=np.nan, MDV=1, CENS=0)
    wanted = np.sort(np.broadcast_to(wanted, (len(pop), wanted.shape[-1])), axis=1)
    ids = np.array(table["ID"].unique().tolist(), dtype=object)
    new = pd.DataFrame({"ID": np.repeat(ids, wanted.shape[1]), "TIME": wanted.ravel()}).assign(**RECORD_COLUMNS)
    return _rebuild(pop, _interleave(kept, new, table, pop), None)


def with_dv(pop: Population, endpoints: Mapping[str, Any]) -> Population:
    """Return the population with other observations; see :meth:`hierax.Population.with_dv`."""
    unknown = sorted(set(endpoints) - set(pop.dv))
    if unknown:
        raise ValueError(f"with_dv names {unknown}, which are not endpoints. Name some of {list(pop.dv)}.")
    dv, mask, records = dict(pop.dv), dict(pop.mask), dict(pop.records)
    shape, evid = np.shape(pop.times), np.asarray(records["evid"])
    for name, values in endpoints.items():
        values = np.asarray(values, float)
        if values.shape not in (shape, (len(pop), shape[1])):
            raise ValueError(
                f"with_dv({name}=...) has shape {values.shape}, but the records are (subject, time) = {shape}. "
                f"Give one value a record, NaN where there is none."
            )
        full = np.full(shape, np.nan)
        full[: len(values)] = values
        seen = np.isfinite(full) & np.asarray(pop.record_mask) & np.isin(evid, (0, 2))
        dv[name], mask[name] = np.where(seen, full, 0.0), seen
    if np.sum(list(mask.values()), axis=0).max() > 1:
        raise ValueError("with_dv observes two endpoints at one record, and a record holds one DV. Use NaN for one.")
    observed = np.logical_or.reduce(list(mask.values()))
    records["dv"] = np.where(observed, np.sum(list(dv.values()), axis=0), np.nan)
    records["mdv"] = np.where(observed, 0.0, np.where(np.isnan(evid), np.nan, 1.0))
    records["evid"] = np.where(observed, 0.0, evid)
    # New observations are not censored; the censoring of the other endpoints stays as it is.
    fresh = np.logical_or.reduce([mask[name] | np.asarray(pop.mask[name]) for name in endpoints])
    records["cens"] = np.where(fresh, 0.0, records["cens"])
    if "limit" in records:
        records["limit"] = np.where(fresh, np.nan, records["limit"])
    by, *codes = pop.labels.get(ENDPOINT_CODES, ("DVID",))
    if by == "CMT":
        for (name, seen), code in zip(mask.items(), codes, strict=True):
            records["cmt"] = np.where(seen & (name in endpoints), float(code), records["cmt"])
    return dataclasses.replace(
        pop,
        dv=dv,
        mask=mask,
        records=records,
        cens={name: leaf for name, leaf in pop.cens.items() if name not in endpoints},
        limit={name: leaf for name, leaf in pop.limit.items() if name not in endpoints},
        censoring=tuple(pair for pair in pop.censoring if pair[0] not in endpoints),
    )


def _table(pop: Population) -> pd.DataFrame:
    """Return the population's table with a column that tells its endpoints apart."""
    if not isinstance(pop.ids, tuple):
        raise ValueError("This population came out of a compiled function and has lost its ids. Use the original.")
    table = pop.to_frame()
    by = pop.labels.get(ENDPOINT_CODES, ("DVID",))[0]
    return table if len(pop.dv) == 1 or "DVID" in table.columns else table.assign(DVID=table[by])


def _varies(pop: Population) -> bool:
    """Return whether anything changes between the records of a subject: a covariate, the occasion."""
    occasions = pop.occasion is not None and (np.asarray(pop.occasion) != np.asarray(pop.occasion)[:, :1]).any()
    return bool(occasions) or any(np.ndim(value) == 2 and np.shape(value)[1] > 1 for value in pop.covariates.values())


def _interleave(first: pd.DataFrame, second: pd.DataFrame, source: pd.DataFrame, pop: Population) -> pd.DataFrame:
    """Merge two blocks of records of all subjects, ``first`` before ``second`` at equal times.

    Resets in ``first`` divide each subject's history into parts; a record of ``second`` joins the last part that starts
    at or before it. Covariates and occasions that a record lacks are taken from ``source`` by the population's
    interpolation.
    """
    order = {subject: row for row, subject in enumerate(source["ID"].unique().tolist())}
    first, second, source = (
        block.assign(_subject=block["ID"].map(order).astype(int), TIME=block["TIME"].astype(float))
        for block in (first, second, source)
    )
    part = first["EVID"].isin([3, 4]).groupby(first["_subject"]).cumsum()
    # If the clock restarts at a reset, a subject may have the same time before and after it. The parts of a subject's
    # records between resets are therefore numbered, so that each new record finds its place in the right part.
    own_part = source["EVID"].isin([3, 4]).groupby(source["_subject"]).cumsum()
    turns = (source["TIME"].diff() < 0) & (source["_subject"].diff() == 0)
    source = source.assign(_part=own_part if turns.any() else 0)
    starts: Any = first.assign(_part=part).groupby(["_subject", "_part"], as_index=False)["TIME"].min()
    starts = starts.sort_values(["_subject", "TIME"], kind="stable")
    starts["_part"] = starts.groupby("_subject")["_part"].cummax()
    place = _nearest_knot(second, starts, "backward")["_part"].fillna(0).to_numpy()
    merged = pd.concat([first.assign(_part=part), second.assign(_part=place)], ignore_index=True)
    merged = merged.sort_values(["_subject", "_part", "TIME"], kind="stable", ignore_index=True)
    if not turns.any():
        merged["_part"] = 0
    for name in source.columns.difference(
        [*RECORD_COLUMNS, "CENS", "LIMIT", "ID", "TIME", "_subject", "_part"], sort=False
    ):
        own = merged[name] if name in merged.columns else pd.Series(np.nan, index=merged.index, dtype=object)
        merged[name] = own.astype(object).where(own.notna(), _lookup(source, name, merged, pop))
    return merged.drop(columns=["_subject", "_part"]).infer_objects()


def _nearest_knot(
    rows: pd.DataFrame, knots: pd.DataFrame, direction: Any, by: tuple[str, ...] = ("_subject",)
) -> pd.DataFrame:
    """Return for every row the nearest knot of its subject in one direction.

    ``direction`` is that of :func:`pandas.merge_asof`: ``"backward"`` for the last knot at or before the row's time,
    ``"forward"`` for the first one at or after it.
    """
    left = rows[[*by, "TIME"]].reset_index(drop=True).reset_index(names="_place")
    left, knots = (block.astype(dict.fromkeys(by, int)) for block in (left, knots))
    found = pd.merge_asof(
        left.sort_values("TIME", kind="stable"),
        knots.assign(_knot=knots["TIME"]).sort_values("TIME", kind="stable"),
        on="TIME",
        by=list(by),
        direction=direction,
    )
    return found.sort_values("_place", ignore_index=True)


def _lookup(source: pd.DataFrame, name: str, rows: pd.DataFrame, pop: Population) -> pd.Series:
    """Return a column of ``source`` at the times of ``rows``, by the population's interpolation.

    Linear interpolation is for numbers only; categories and occasions keep their last value instead.
    """
    by = ("_subject", "_part")
    knots = source[[*by, "TIME", name]]
    if not (source.groupby("_subject")[name].nunique(dropna=False) > 1).any():
        return rows["_subject"].map(knots.groupby("_subject")[name].first())
    before, after = _nearest_knot(rows, knots, "backward", by), _nearest_knot(rows, knots, "forward", by)
    # Before the first knot and after the last one there is only one neighbour, which then counts for both.
    before, after = before.fillna(after), after.fillna(before)
    number = name in pop.covariates and name not in pop.labels
    rule = "locf" if pop.interpolation in (None, "linear") and not number else pop.interpolation
    if rule == "nocb":
        return after[name]
    if rule == "midpoint":
        nearer = rows["TIME"] - before["_knot"] <= after["_knot"] - rows["TIME"]
        return before[name].where(nearer, after[name])
    if rule == "linear":
        span = after["_knot"] - before["_knot"]
        share = ((rows["TIME"] - before["_knot"]) / span.where(span != 0, 1.0)).clip(0, 1)
        return before[name] + share * (after[name] - before[name])
    return before[name]


def _rebuild(pop: Population, table: pd.DataFrame, compartments: Any) -> Population:
    """Build a population anew from a table that came from ``pop``, with its labels, endpoints and extra data."""
    vectors = {name: vector_names(name, v.shape[2]) for name, v in pop.covariates.items() if np.ndim(v) == 3}
    scalars = [name for name in pop.covariates if name not in vectors]
    for name in scalars:
        if name in pop.labels:
            table[name] = table[name].map({label: code for code, label in enumerate(pop.labels[name])})
    spec = covariate_spec(scalars, (), vectors, pop.interpolation, "error")
    codes = pop.labels.get(ENDPOINT_CODES, ("DVID", *range(1, len(pop.dv) + 1)))[1:]
    if len(pop.dv) > 1:
        table["DVID"] = table["DVID"].fillna(codes[0])
    names = compartments or pop.compartment_names
    out = build(type(pop), table, spec, dict(zip(pop.dv, codes, strict=True)), dict(names))
    labels = {name: value for name, value in pop.labels.items() if name != ENDPOINT_CODES}
    data = {name: np.asarray(leaf)[: len(pop)] for name, leaf in pop.data.items()}
    out = dataclasses.replace(out, data=data, labels=out.labels | labels)
    if pop.occasion is None:
        return out
    # Occasions keep the codes of the old population, even if a level no longer has any record.
    levels = {level: index for index, level in enumerate(labels.get(OCCASION_LEVELS, range(pop.n_occasions)))}
    occasion = RecordAxis(table).scatter_hold(table["OCC"].map(levels)).astype(np.int32)
    return dataclasses.replace(out, occasion=occasion, occasion_mask=np.asarray(pop.occasion_mask)[: len(pop)])
