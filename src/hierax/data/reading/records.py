"""Converting a clean table of records into padded arrays on the record axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hierax.data.events import count_segments, expand_doses
from hierax.data.named import OCCASION_LEVELS
from hierax.data.reading.covariates import CovariateSpec

if TYPE_CHECKING:
    from hierax.data.population import Population

# The items of records that a population keeps in its ``records``.
KEPT = ("EVID", "CMT", "AMT", "RATE", "II", "ADDL", "SS", "DV", "MDV", "CENS", "LIMIT")


class RecordAxis:
    """Scatters one value per row into a ``(subject, time)`` array."""

    def __init__(self, frame: pd.DataFrame):
        codes, ids = pd.factorize(frame["ID"])
        self.subject = codes
        self.ids = list(ids)
        self.position = frame.groupby(codes, sort=False).cumcount().to_numpy()
        self.shape = (len(ids), int(self.position.max()) + 1)

    def scatter(self, values: Any, fill: float = 0.0, dtype: Any = float) -> np.ndarray:
        """Put ``values`` (one per row) on the record axis; padding gets ``fill``."""
        out = np.full(self.shape, fill, dtype)
        out[self.subject, self.position] = np.asarray(values)
        return out

    def scatter_hold(self, values: Any) -> np.ndarray:
        """Put ``values`` on the record axis; padding repeats the subject's last value, so that times stay sorted."""
        out = self.scatter(values)
        last = np.zeros(self.shape[0], int)
        np.maximum.at(last, self.subject, self.position)
        return np.where(np.arange(self.shape[1]) <= last[:, None], out, out[np.arange(len(out)), last][:, None])


def build_population(
    kind: type[Population],
    frame: pd.DataFrame,
    endpoints: tuple[str, ...],
    spec: CovariateSpec,
    labels: dict[str, tuple[Any, ...]],
    compartments: Mapping[str, int] | None = None,
) -> Population:
    """Build the population from a table that :func:`hierax.read_nonmem` has checked."""
    axis = RecordAxis(frame)
    times = axis.scatter_hold(frame["TIME"])
    records = {name.lower(): axis.scatter(frame[name], np.nan) for name in KEPT if name in frame.columns}
    # The DV of a record that is not an observation is dropped; one left out of estimation (MDV 100) is kept.
    records["dv"] = np.where((records["evid"] == 0) & np.isin(records["mdv"], (0, 100)), records["dv"], np.nan)
    with_times = {**records, "time": times}
    observed = axis.scatter(frame["_observed"], False, bool)
    endpoint = axis.scatter(frame["_endpoint"], -1, int)
    mask = {name: observed & (endpoint == index) for index, name in enumerate(endpoints)}
    dv = {name: np.where(mask[name], records["dv"], 0.0) for name in endpoints}
    occasion, occasion_mask = _occasions(frame, axis)
    return kind(
        times=times,
        dv=dv,
        mask=mask,
        covariates=_covariates(frame, spec, axis),
        events=expand_doses(with_times),
        records=records,
        record_mask=axis.scatter(True, False, bool),
        subject_mask=np.ones(axis.shape[0], bool),
        segment=count_segments(with_times),
        occasion=occasion,
        occasion_mask=occasion_mask,
        **_censoring(records, mask),
        interpolation=spec.interpolation,
        compartment_names=tuple(sorted((compartments or {}).items(), key=lambda pair: pair[1])),
        labels=labels | _occasion_levels(frame),
        ids=tuple(axis.ids),
    )


def _covariates(frame: pd.DataFrame, spec: CovariateSpec, axis: RecordAxis) -> dict[str, np.ndarray]:
    out = {name: _covariate(frame, name, axis) for name in spec.names}
    for name, columns in spec.vectors.items():
        out[name] = np.stack([axis.scatter(frame[column])[:, :1] for column in columns], axis=-1)
    return out


def _covariate(frame: pd.DataFrame, name: str, axis: RecordAxis) -> np.ndarray:
    values = axis.scatter_hold(frame[name])
    return values if (values != values[:, :1]).any() else values[:, :1]


def _occasions(frame: pd.DataFrame, axis: RecordAxis) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the index of the occasion of every record, and which subject has which occasion."""
    if "OCC" not in frame.columns:
        return None, None
    codes, levels = pd.factorize(frame["OCC"], sort=True)
    present = np.zeros((axis.shape[0], len(levels)), bool)
    present[axis.subject, codes] = True
    return axis.scatter_hold(codes).astype(np.int32), present


def _occasion_levels(frame: pd.DataFrame) -> dict[str, tuple[Any, ...]]:
    return {OCCASION_LEVELS: tuple(np.unique(frame["OCC"]).tolist())} if "OCC" in frame.columns else {}


def _censoring(records: dict[str, np.ndarray], mask: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the censoring arrays of every endpoint that has censored rows, and the kind of its censoring."""
    cens, lower, kinds = {}, {}, []
    limit = records.get("limit", np.full_like(records["dv"], np.nan))
    for name, observed in mask.items():
        # An empty CENS cell means "not censored".
        codes = np.where(observed, np.nan_to_num(records["cens"]), 0.0)
        if not codes.any():
            continue
        has_limit = bool(np.isfinite(limit[codes != 0]).any())
        both = (codes > 0).any() and (codes < 0).any()
        kinds.append((name, "interval" if has_limit or both else "left" if (codes > 0).any() else "right"))
        cens[name] = codes.astype(np.int32)
        # The other end of the interval: LIMIT, else minus or plus infinity.
        lower[name] = np.where(np.isfinite(limit), limit, np.where(codes > 0, -np.inf, np.inf))
    return {"cens": cens, "limit": lower, "censoring": tuple(kinds)}
