"""The doses of a population on an axis of their own, as structural models integrate or superpose them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

# Values of ``Events.modelled``: RATE = -1 and RATE = -2 of the dose record.
MODELLED_RATE, MODELLED_DURATION = 1, 2


@dataclasses.dataclass(frozen=True)
class Events:
    """The doses of every subject, ADDL doses included, padded to a common count.

    Attributes
    ----------
    time : array, (subject, dose)
        Time of the dose, in the unit of TIME, before any lag. Padded entries repeat a finite time.
    amount : array, (subject, dose)
        Amount, before bioavailability; 0 where padded, and for a constant infusion at steady state.
    rate : array, (subject, dose)
        Infusion rate; 0 for a bolus and where rate or duration is a parameter.
    modelled : array of int, (subject, dose)
        1 where the rate is a parameter (RATE -1), 2 where the duration is one (RATE -2), else 0.
    interval : array, (subject, dose)
        II of a steady-state dose; 0 otherwise.
    steady : array of int, (subject, dose)
        1 for a dose at steady state (SS 1 and 3), 2 if it is added to the amounts already present (SS 2), else 0.
    compartment : array of int, (subject, dose)
        CMT of the dose record, 1 when the data have none.
    record : array of int, (subject, dose)
        Index on the record axis of the dose record that the dose comes from.
    segment : array of int, (subject, dose)
        How often the system was reset (EVID 3 and 4, SS 1) up to and including the dose record: a dose acts on
        records of its own segment only.
    mask : array of bool, (subject, dose)
        Which entries are doses.
    infusions, resets : bool
        Whether there are any. They are static structure, so that data without them compile without their formulas.
    steady_states : int
        How many steady-state doses a subject has at most.
    superposed : bool
        Whether any steady state is added to the amounts already present (SS 2).
    not_plain : tuple of int
        Compartments with infusions or steady states.
    modelled_kinds : tuple of (kind, compartment)
        Which non-zero values of ``modelled`` occur, and in which compartments.
    overlap : int
        How many infusions of one steady-state dose run at the same time at most, by the rates in the data.
    compartments : tuple of int
        Which compartments are dosed.

    Examples
    --------
    >>> doses = hx.Regimen(100, interval=12, count=3)
    >>> design = hx.Population.from_grid(doses, [1.0, 13.0], n=1)
    >>> design.events.time.tolist()
    [[0.0, 12.0, 24.0]]
    """

    time: Any
    amount: Any
    rate: Any
    modelled: Any
    interval: Any
    steady: Any
    compartment: Any
    record: Any
    segment: Any
    mask: Any
    infusions: bool = False
    resets: bool = False
    steady_states: int = 0
    superposed: bool = False
    not_plain: tuple[int, ...] = ()
    modelled_kinds: tuple[tuple[int, int], ...] = ()
    overlap: int = 0
    compartments: tuple[int, ...] = (1,)

    @property
    def duration(self) -> Any:
        """Infusion duration ``amount / rate`` of the data, (subject, dose); 0 for a bolus."""
        infused = self.rate > 0
        return self.amount * infused / (self.rate + ~infused)

    def without_absent_kinds(self) -> Events:
        """Return the same doses without the modelled rates and durations that none of them has.

        A model then need not give rates and durations that no dose uses. All other structure stays, so that parts of
        a population share compiled functions.
        """
        here = np.asarray(self.mask)
        modelled, compartment = np.asarray(self.modelled)[here], np.asarray(self.compartment)[here]
        there = set(zip(modelled.tolist(), compartment.tolist(), strict=True))
        return dataclasses.replace(self, modelled_kinds=tuple(kind for kind in self.modelled_kinds if kind in there))

    def structured_as(self, whole: Events) -> Events:
        """Return these doses, a part of ``whole``, with its structure, so that they share compiled functions."""
        return dataclasses.replace(self, **{name: getattr(whole, name) for name in _STRUCTURE})


# The fields that are arrays; all others are static structure.
_ARRAYS = ["time", "amount", "rate", "modelled", "interval", "steady", "compartment", "record", "segment", "mask"]
_STRUCTURE = [field.name for field in dataclasses.fields(Events) if field.name not in _ARRAYS]
jax.tree_util.register_dataclass(Events, data_fields=_ARRAYS, meta_fields=_STRUCTURE)


def count_segments(records: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return how often the system was reset up to and including each record, (subject, time)."""
    starts = np.isin(records["evid"], (3, 4)) | (_is_dose(records) & np.isin(records["ss"], (1, 3)))
    return np.cumsum(starts, axis=1).astype(np.int32)


def expand_doses(records: Mapping[str, np.ndarray]) -> Events:
    """Expand the dose records of a padded record table, ADDL and II included.

    In file order, an additional dose has the place of its dose record: it comes before an observation at the same time
    that is listed after the dose record. Additional doses of a steady-state dose are ordinary doses.

    Parameters
    ----------
    records : dict of arrays, each (subject, time)
        ``time``, ``evid``, ``amt``, ``rate``, ``ii``, ``addl``, ``ss``, ``cmt``.
    """
    subject, record = np.nonzero(_is_dose(records))
    segment = count_segments(records)
    counts = records["addl"][subject, record].astype(int) + 1
    subject, record = np.repeat(subject, counts), np.repeat(record, counts)
    ends = np.cumsum(counts)
    repeat = np.arange(len(subject)) - np.repeat(ends - counts, counts)
    at = (subject, record)
    rate = records["rate"][at]
    steady = np.where(repeat == 0, records["ss"][at], 0)
    steady = np.where(steady == 3, 1, steady)
    values = {
        "time": records["time"][at] + repeat * records["ii"][at],
        "amount": records["amt"][at],
        "rate": np.maximum(rate, 0.0),
        "modelled": np.where(rate < 0, -rate, 0).astype(np.int32),
        "interval": np.where(steady > 0, records["ii"][at], 0.0),
        "steady": steady.astype(np.int32),
        "compartment": np.where(records["cmt"][at] > 0, records["cmt"][at], 1).astype(np.int32),
        "record": record.astype(np.int32),
        "segment": segment[at],
        "mask": np.ones(len(record), bool),
    }
    axis = _DoseAxis(subject, records["time"].shape[0])
    return Events(
        **{name: axis.scatter(value) for name, value in values.items()}, **_structure(values, segment, subject)
    )


def _is_dose(records: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.isin(records["evid"], (1, 4))


def _structure(values: dict[str, np.ndarray], segment: np.ndarray, subject: np.ndarray) -> dict[str, Any]:
    """Return the static structure of these doses, which says which formulas they need."""
    steady, rate, interval = values["steady"] > 0, values["rate"], values["interval"]
    periodic = steady & (rate > 0) & (interval > 0)
    runs = values["amount"][periodic] / rate[periodic] / interval[periodic]
    modelled = values["modelled"] > 0
    pairs = np.stack([values["modelled"], values["compartment"]], axis=1)[modelled]
    kinds = [(int(kind), int(compartment)) for kind, compartment in np.unique(pairs, axis=0)]
    return {
        "infusions": bool((rate > 0).any() or kinds),
        "resets": bool(segment.any()),
        "steady_states": int(np.bincount(subject[steady]).max()) if steady.any() else 0,
        "not_plain": tuple(int(number) for number in np.unique(values["compartment"][(rate > 0) | modelled | steady])),
        "superposed": bool((values["steady"] == 2).any()),
        "modelled_kinds": tuple(kinds),
        "overlap": int(np.ceil(runs.max())) if runs.size else 0,
        "compartments": tuple(int(number) for number in np.unique(values["compartment"])) or (1,),
    }


class _DoseAxis:
    """Scatters one value per dose into a ``(subject, dose)`` array."""

    def __init__(self, subject: np.ndarray, n_subjects: int):
        self.subject = subject
        self.position = _position_within(subject)
        self.shape = (n_subjects, int(self.position.max()) + 1 if subject.size else 0)

    def scatter(self, values: np.ndarray) -> np.ndarray:
        out = np.zeros(self.shape, values.dtype)
        out[self.subject, self.position] = values
        return out


def _position_within(group: np.ndarray) -> np.ndarray:
    """Return 0, 1, 2, ... within each run of equal values of a sorted array."""
    if not group.size:
        return group
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    return np.arange(group.size) - np.repeat(starts, np.diff(np.r_[starts, group.size]))
