"""Doses on their own axis: what the structural models integrate or superpose."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Events:
    """The doses of every subject, ADDL doses included, padded to a common count.

    Attributes
    ----------
    time : array, (subject, dose)
        Time of the dose, in the unit of TIME. Padded entries repeat a finite time.
    amount : array, (subject, dose)
        Amount; 0 where padded.
    rate : array, (subject, dose)
        Infusion rate; 0 for a bolus.
    compartment : array of int, (subject, dose)
        CMT of the dose record, 1 when the data have none.
    record : array of int, (subject, dose)
        Index on the record axis of the dose record that the dose comes from.
    mask : array of bool, (subject, dose)
        Which entries are doses.
    infusions : bool
        Whether any dose is an infusion: structure, so that bolus data compile without infusion formulas.
    """

    time: Any
    amount: Any
    rate: Any
    compartment: Any
    record: Any
    mask: Any
    infusions: bool = False

    @property
    def duration(self) -> Any:
        """Infusion duration ``amount / rate``, (subject, dose); 0 for a bolus."""
        infused = self.rate > 0
        return self.amount * infused / (self.rate + ~infused)


jax.tree_util.register_dataclass(
    Events, data_fields=["time", "amount", "rate", "compartment", "record", "mask"], meta_fields=["infusions"]
)


def expand_doses(records: dict[str, np.ndarray]) -> Events:
    """Expand the dose records of a padded record table, ADDL and II included.

    An additional dose takes the place of its parent in file order: an observation at the very time of an
    additional dose, listed after the dose record, sees it.

    Parameters
    ----------
    records : dict of arrays, each (subject, time)
        ``time``, ``evid``, ``amt``, ``rate``, ``ii``, ``addl``, ``cmt``.
    """
    subject, record = np.nonzero(records["evid"] == 1)
    counts = records["addl"][subject, record].astype(int) + 1
    subject, record = np.repeat(subject, counts), np.repeat(record, counts)
    repeat = np.concatenate([np.arange(count) for count in counts]) if counts.size else np.zeros(0, int)
    n_subjects = records["time"].shape[0]
    position = _position_within(subject)
    width = int(position.max()) + 1 if position.size else 0
    shape = (n_subjects, width)

    def scatter(values: np.ndarray, fill: float, dtype: Any) -> np.ndarray:
        out = np.full(shape, fill, dtype)
        out[subject, position] = values
        return out

    at = (subject, record)
    return Events(
        time=scatter(records["time"][at] + repeat * records["ii"][at], 0.0, float),
        amount=scatter(records["amt"][at], 0.0, float),
        rate=scatter(records["rate"][at], 0.0, float),
        compartment=scatter(records["cmt"][at], 1, np.int32),
        record=scatter(record, 0, np.int32),
        mask=scatter(np.ones(len(record)), False, bool),
        infusions=bool((records["rate"][at] > 0).any()),
    )


def _position_within(group: np.ndarray) -> np.ndarray:
    """Return 0, 1, 2, ... within each run of equal values of a sorted array."""
    if not group.size:
        return group
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    return np.arange(group.size) - np.repeat(starts, np.diff(np.r_[starts, group.size]))
