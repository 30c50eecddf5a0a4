"""From a population back to a table of records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from hierax.data.population import Population

ORDER = ("AMT", "EVID", "CMT", "RATE", "II", "ADDL", "MDV", "CENS", "LIMIT")


def to_frame(pop: Population) -> pd.DataFrame:
    """Return one row a real record, in file order; see :meth:`hierax.Population.to_frame`."""
    subject, record = np.nonzero(np.asarray(pop.record_mask) & np.asarray(pop.subject_mask)[:, None])
    at = (subject, record)
    ids = np.array(pop.ids if pop.ids is not None else range(1, len(pop) + 1), dtype=object)
    value = np.full(len(subject), np.nan)
    endpoint = np.zeros(len(subject), int)
    for index, (name, mask) in enumerate(pop.mask.items()):
        hit = np.asarray(mask)[at]
        value[hit] = np.asarray(pop.dv[name])[at][hit]
        endpoint[hit] = index + 1
    frame = pd.DataFrame({"ID": ids[subject], "TIME": np.asarray(pop.times)[at], "DV": value}).infer_objects()
    for name in ORDER:
        if name.lower() in pop.records:
            frame[name] = np.asarray(pop.records[name.lower()])[at]
    if len(pop.mask) > 1:
        frame["DVID"] = endpoint
    if pop.occasion is not None:
        frame["OCC"] = np.asarray(pop.occasion)[at]
    for name, values in pop.covariates.items():
        if np.ndim(values) > 2:
            continue
        wide = np.broadcast_to(np.asarray(values), np.asarray(pop.times).shape)[at]
        labels = pop.labels.get(name)
        frame[name] = wide if labels is None else np.array(labels, dtype=object)[wide.astype(int)]
    whole = [name for name in ("EVID", "CMT", "ADDL", "MDV", "CENS") if name in frame.columns]
    return frame.astype({name: int for name in whole})
