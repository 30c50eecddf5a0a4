"""Converting a population back into a table of records."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hierax.data.named import ENDPOINT_CODES, OCCASION_LEVELS

if TYPE_CHECKING:
    from hierax.data.population import Population

# The columns of items of records, in the order in which a table has them after ID, TIME and DV.
ORDER = ("AMT", "EVID", "CMT", "RATE", "II", "ADDL", "SS", "MDV", "CENS", "LIMIT")


def to_frame(pop: Population) -> pd.DataFrame:
    """Return a table with one row per real record, in file order; see :meth:`hierax.Population.to_frame`."""
    subject, record = np.nonzero(np.asarray(pop.record_mask) & np.asarray(pop.subject_mask)[:, None])
    at = (subject, record)
    ids = np.array(_unique(pop.ids if isinstance(pop.ids, tuple) else range(1, len(pop) + 1)), dtype=object)
    by, *codes = pop.labels.get(ENDPOINT_CODES, ("DVID", *range(1, len(pop.mask) + 1)))
    value = np.full(len(subject), np.nan)
    endpoint = np.full(len(subject), codes[0], dtype=object)
    for index, (name, mask) in enumerate(pop.mask.items()):
        hit = np.asarray(mask)[at]
        value[hit] = np.asarray(pop.dv[name])[at][hit]
        endpoint[hit] = codes[index]
    frame = pd.DataFrame({"ID": ids[subject], "TIME": np.asarray(pop.times)[at], "DV": value}).infer_objects()
    if "dv" in pop.records:
        left_out = np.asarray(pop.records["mdv"])[at] == 100
        frame["DV"] = np.where(left_out, np.asarray(pop.records["dv"])[at], frame["DV"])
    for name in ORDER:
        if name.lower() in pop.records:
            frame[name] = np.asarray(pop.records[name.lower()])[at]
    if len(pop.mask) > 1 and by == "DVID":
        frame["DVID"] = pd.Series(endpoint).infer_objects()
    if pop.occasion is not None:
        levels = pop.labels.get(OCCASION_LEVELS, range(pop.n_occasions))
        frame["OCC"] = np.array(list(levels))[np.asarray(pop.occasion)[at]]
    for name, values in pop.covariates.items():
        if np.ndim(values) == 3:
            vector = np.asarray(values)[subject, 0]
            frame = frame.assign(**{f"{name}_{index + 1}": vector[:, index] for index in range(vector.shape[1])})
            continue
        wide = np.broadcast_to(np.asarray(values), np.asarray(pop.times).shape)[at]
        labels = pop.labels.get(name)
        frame[name] = wide if labels is None else np.array(labels, dtype=object)[wide.astype(int)]
    whole = [name for name in ("EVID", "CMT", "ADDL", "SS", "MDV", "CENS") if name in frame.columns]
    return frame.astype({name: int for name in whole})


def _unique(ids: Iterable[Any]) -> list[Any]:
    """Return ids in which further copies of a resampled subject are named ``id#2``, ``id#3``, ...

    With the same ID, their rows would be read back as one subject.
    """
    seen: dict[Any, int] = {}
    out = []
    for subject in ids:
        seen[subject] = seen.get(subject, 0) + 1
        out.append(subject if seen[subject] == 1 else f"{subject}#{seen[subject]}")
    return out
