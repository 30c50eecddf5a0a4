"""The data of a population as padded arrays that go through ``jax.jit``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.core import Tracer

from hierax.data.by_id import ById, positions
from hierax.data.design import from_grid, from_subjects
from hierax.data.events import Events
from hierax.data.frame import to_frame
from hierax.data.named import ENDPOINT_CODES as ENDPOINT_CODES
from hierax.data.named import LOST_IDS, Labels, Named
from hierax.data.named import OCCASION_LEVELS as OCCASION_LEVELS
from hierax.data.padding import bucket_size, pad_axis
from hierax.data.redesign import at_times, with_dv, with_regimen

if TYPE_CHECKING:
    from hierax.data.regimen import Subject

# The fields that are leaves of the pytree.
ARRAYS = (
    "times",
    "dv",
    "mask",
    "covariates",
    "events",
    "records",
    "record_mask",
    "subject_mask",
    "segment",
    "occasion",
    "occasion_mask",
    "cens",
    "limit",
    "data",
    "grids",
)
# Static fields of the pytree: other values of these compile anew, as do other shapes and other labels of covariates.
STRUCTURE = ("censoring", "interpolation", "compartment_names")


@dataclasses.dataclass(frozen=True, eq=False)
class Population:
    """Records of all subjects, padded to common lengths: a pytree of arrays.

    The time axis is the record axis: every record in file order, dose records included. Ids are not part of the
    pytree, so that other ids and other values do not retrace a compiled function. Other labels of categories do,
    because a model may read them.

    Attributes
    ----------
    times : array, (subject, time)
        Time of every record; padding repeats the subject's last time.
    dv : dict of arrays, (subject, time)
        Observed values by endpoint; 0 where the record is no observation of it.
    mask : dict of bool arrays, (subject, time)
        Which records are data of the endpoint.
    covariates : dict of arrays
        ``(subject, 1)`` constant, ``(subject, time)`` varying, ``(subject, 1, k)`` a vector.
    events : Events
        The doses, ADDL expanded, ``(subject, dose)``.
    records : dict of arrays, (subject, time)
        The raw items of the records (evid, cmt, amt, ...), NaN in the padding.
    record_mask, subject_mask : bool arrays, (subject, time) and (subject,)
        Which records and which subjects are real.
    segment : array of int, (subject, time)
        How often the system was reset (EVID 3 and 4, SS 1) up to and including each record.
    occasion : array of int, (subject, time), or None
        Index of the occasion (sorted levels of OCC) of every record.
    occasion_mask : bool array, (subject, occasion), or None
        Which subject has which occasion.
    cens, limit : dict of arrays, (subject, time)
        Censoring code (1 left, -1 right, 0 none) and the interval's other end, for endpoints with censored rows.
    censoring : tuple of (endpoint, kind)
        Kind is ``left``, ``right`` or ``interval``.
    data : dict of arrays
        Arrays that :meth:`with_data` added; their leading axis is the subject axis.
    grids : dict
        Frozen steps of the ODEs of a program, placed by a fit; see :class:`~hierax.Grid`.
    interpolation : str or None
        Rule for the values between the records of a subject: ``locf``, ``nocb``, ``midpoint`` or ``linear``.
    compartment_names : tuple of (name, number)
        Names of compartments, where CMT had names.
    labels : dict
        Labels of categories by covariate, in the order of their codes; a model may read them.
    ids : tuple
        Ids of the real subjects. Not known inside a model, nor of a population that came out of a compiled function.

    Examples
    --------
    >>> len(pop), pop.n_observations
    (10, 20)
    >>> len(pop[:3]), len(pop.loc[[1, 5]])
    (3, 2)
    """

    times: Any
    dv: dict[str, Any]
    mask: dict[str, Any]
    covariates: dict[str, Any]
    events: Events
    records: dict[str, Any]
    record_mask: Any
    subject_mask: Any
    segment: Any
    occasion: Any = None
    occasion_mask: Any = None
    cens: dict[str, Any] = dataclasses.field(default_factory=dict)
    limit: dict[str, Any] = dataclasses.field(default_factory=dict)
    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    grids: dict[str, Any] = dataclasses.field(default_factory=dict)
    censoring: tuple[tuple[str, str], ...] = ()
    interpolation: str | None = None
    compartment_names: tuple[tuple[str, int], ...] = ()
    labels: dict[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    ids: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "covariates", Named(self.covariates))
        object.__setattr__(self, "labels", Labels(self.labels))

    # -- sizes ---------------------------------------------------------------------------------------------------

    @property
    def n_subjects(self) -> int:
        """Length of the subject axis of the arrays, padded subjects included."""
        return self.times.shape[0]

    @property
    def n_records(self) -> int:
        """Length of the record axis, padding included."""
        return self.times.shape[1]

    @property
    def n_occasions(self) -> int:
        """Number of occasions (levels of OCC); 1 without OCC."""
        return 1 if self.occasion_mask is None else self.occasion_mask.shape[1]

    @property
    def subject_ids(self) -> list[Any]:
        """Ids of the real subjects; row numbers if the population has lost its ids."""
        rows = np.flatnonzero(np.asarray(self.subject_mask))
        return list(self.ids) if isinstance(self.ids, tuple) else [int(row) for row in rows]

    def __len__(self) -> int:
        """Return the number of real subjects, or ``n_subjects`` in a compiled function, where that number is traced."""
        if isinstance(self.ids, tuple):
            return len(self.ids)
        if isinstance(self.subject_mask, Tracer):
            return self.n_subjects
        return int(np.sum(self.subject_mask))

    @property
    def n_observations(self) -> int:
        """Number of observed values over all endpoints, censored ones included."""
        return int(sum(np.sum(mask & self.subject_mask[:, None]) for mask in self.mask.values()))

    def __repr__(self) -> str:
        if isinstance(self.times, Tracer):
            return (
                f"Population inside a compiled function ({self.n_subjects} subjects, {self.n_records} records each, "
                f"padding included; endpoints {list(self.mask)}, covariates {list(self.covariates)})"
            )
        observed = ", ".join(f"{name}: {self._observed(name)}" for name in self.mask)
        return (
            f"Population({len(self)} subjects, {int(np.sum(self.record_mask))} records, "
            f"{int(np.sum(self.events.mask))} doses, observations {{{observed}}}, covariates {list(self.covariates)})"
        )

    def _observed(self, endpoint: str) -> str:
        mask = np.asarray(self.mask[endpoint])
        censored = int(np.sum(mask & (np.asarray(self.cens.get(endpoint, 0)) != 0)))
        return f"{int(np.sum(mask))}" + (f" ({censored} censored)" if censored else "")

    # -- rows ----------------------------------------------------------------------------------------------------

    def __getitem__(self, rows: Any) -> Population:
        """Return the subjects at these positions (an int, slice, array, mask) or with these text ids.

        For integer ids, use ``pop.loc[ids]``. Outside compiled functions, the subset is padded to the next bucket,
        never beyond the parent's size, so that subsets of about the same size share compiled functions; a subset
        without doses of RATE -1 or -2 does not require these rates and durations from a model. Traced rows give as
        many subjects as there are rows.
        """
        traced = any(isinstance(leaf, Tracer) for leaf in (rows, self.times))
        if traced:
            index = jnp.arange(self.n_subjects)[rows] if isinstance(rows, slice) else jnp.atleast_1d(jnp.asarray(rows))
            return jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], self)
        if isinstance(rows, str) or (isinstance(rows, list | tuple) and rows and isinstance(rows[0], str)):
            return self.loc[rows]
        if np.ndim(rows) == 1 and np.asarray(rows).dtype == bool and len(np.asarray(rows)) == self.n_subjects:
            rows = np.asarray(rows)[: len(self)]
        picked = positions(rows, len(self))
        taken = jax.tree.map(lambda leaf: np.asarray(leaf)[picked], self)
        ids = tuple(self.ids[row] for row in picked) if isinstance(self.ids, tuple) else None
        events = taken.events.without_absent_kinds()
        part = dataclasses.replace(taken, ids=ids, labels=self.labels, events=events)
        return part.pad(min(bucket_size(len(picked)), max(self.n_subjects, len(picked))))

    @property
    def loc(self) -> ById:
        """Subjects by id: ``pop.loc[101]``, ``pop.loc[[101, 105]]``."""
        return ById(self)

    def pad(
        self, n_subjects: int | None = None, n_records: int | None = None, n_doses: int | None = None
    ) -> Population:
        """Return the population padded to these axis lengths.

        A padded subject repeats the first one's values, but has no observations and adds exactly 0 to every
        objective.
        """
        out = self
        if n_records is not None and n_records > self.n_records:
            out = pad_axis(out, 1, n_records)
        if n_doses is not None and n_doses > out.events.time.shape[1]:
            grown = jax.tree.map(lambda leaf: _grow_doses(leaf, n_doses), out.events)
            out = dataclasses.replace(out, events=grown, grids={})
        if n_subjects is not None and n_subjects > self.n_subjects:
            out = pad_axis(out, 0, n_subjects)
        return dataclasses.replace(out, ids=self.ids, labels=self.labels)

    def bucket(self) -> Population:
        """Return the population padded to the next bucket of every axis (buckets are at most 25 % apart)."""
        doses = self.events.time.shape[1]
        return self.pad(
            bucket_size(self.n_subjects), bucket_size(self.n_records), bucket_size(doses) if doses else None
        )

    # -- designs -------------------------------------------------------------------------------------------------

    @classmethod
    def from_subjects(
        cls,
        subjects: Iterable[Subject],
        *,
        interpolation: str | None = None,
        compartments: Any = None,
        categorical: Any = (),
    ) -> Population:
        """Build a population from subjects that are written by hand.

        Parameters
        ----------
        subjects : iterable of Subject
            Each with its regimen, times, observations (if any) and covariates; all with the same covariates.
        interpolation : {"locf", "nocb", "midpoint", "linear"}, optional
            Rule for a covariate that varies, between two of its values.
        compartments : mapping, optional
            Name → number, for regimens whose route is a name.
        categorical : iterable of str, or mapping of str to labels
            As in :func:`hierax.read_nonmem`; ``fit.pop.labels`` holds the labels that a model was fitted with.

        Returns
        -------
        Population
            Records are in the order of time, at equal times doses first. Records without an observed value serve
            prediction and simulation, and are not data.
        """
        return from_subjects(cls, list(subjects), interpolation, compartments, categorical=categorical)

    @classmethod
    def from_grid(
        cls,
        regimens: Any,
        times: Any,
        covariates: Mapping[str, Any] | None = None,
        *,
        n: int = 1,
        compartments: Any = None,
        categorical: Any = (),
    ) -> Population:
        """Build all combinations of regimens and covariate values, ``n`` subjects each.

        Parameters
        ----------
        regimens : Regimen, sequence of Regimen, or mapping of name to Regimen
            With several, the category ``REGIMEN`` says which one a subject has.
        times : array
            Times to predict at, the same for all.
        covariates : mapping, optional
            Name → value, or sequence of values to combine.
        n : int
            Subjects in each cell of the grid.
        categorical : iterable of str, or mapping of str to labels
            As in :func:`hierax.read_nonmem`.

        Returns
        -------
        Population
            Subjects are sorted by regimen, then by the covariates in the order given; ids count from 1.
        """
        return from_grid(cls, regimens, times, dict(covariates or {}), n, compartments, categorical)

    def with_regimen(self, regimen: Any, *, keep_data: bool = False, compartments: Any = None) -> Population:
        """Return the population with other doses in place of its own.

        Parameters
        ----------
        regimen : Regimen or mapping
            One for all subjects, or one for each id. It replaces all doses and resets. Where covariates or occasions
            vary, the old dose records stay, without doses, as times at which these change.
        keep_data : bool
            Whether the observations stay data. By default they become records to predict, since they were not
            observed under this regimen.
        """
        return with_regimen(self, regimen, keep_data, compartments)

    def at_times(self, times: Any) -> Population:
        """Return the population with records to predict at other times, in place of its observations.

        Doses, resets and, where covariates or occasions vary, the records at which these change stay on the record
        axis. Where resets divide a subject's history, a time belongs to the last part that starts at or before it.

        Parameters
        ----------
        times : array, (time,) or (subject, time)
            Times for all subjects, or for each.
        """
        return at_times(self, times)

    def with_dv(self, **endpoints: Any) -> Population:
        """Return the population with these observations, where NaN stands for no observation.

        Parameters
        ----------
        **endpoints : arrays, (subject, time)
            Observed values on the record axis, such as one draw of :func:`hierax.simulate`. Endpoints that are not
            named keep their data.
        """
        return with_dv(self, endpoints)

    # -- more data -----------------------------------------------------------------------------------------------

    def with_data(self, **arrays: Any) -> Population:
        """Return the population with extra per-subject arrays, which a model reads from ``pop.data``.

        Raises
        ------
        ValueError
            The leading axis of an array is not the subject axis.
        """
        for name, array in arrays.items():
            if np.ndim(array) < 1 or np.shape(array)[0] != self.n_subjects:
                raise ValueError(
                    f"with_data({name}=...) has shape {np.shape(array)}, but its leading axis must be the subject "
                    f"axis of length {self.n_subjects}, because mini-batches take its rows. Put one entry a subject."
                )
        return dataclasses.replace(self, data={**self.data, **arrays})

    def to_frame(self) -> pd.DataFrame:
        """Return the records as a NONMEM-style table that :func:`hierax.read_nonmem` reads back.

        A design without any observation is a table for other tools; ``read_nonmem`` refuses it.
        """
        return to_frame(self)


def _flatten(pop: Population) -> tuple[tuple[Any, ...], Any]:
    # The levels of OCC and the codes of endpoints are left out, because a model does not read them.
    labels = tuple((name, pop.labels[name]) for name in sorted(pop.labels) if name in pop.covariates)
    return tuple(getattr(pop, name) for name in ARRAYS), (labels, *(getattr(pop, name) for name in STRUCTURE))


def _unflatten(structure: Any, arrays: tuple[Any, ...]) -> Population:
    labels, *rest = structure
    return Population(
        **dict(zip(ARRAYS, arrays, strict=True)),
        **dict(zip(STRUCTURE, rest, strict=True)),
        labels=dict(labels),
        ids=LOST_IDS if isinstance(arrays[0], Tracer) else None,
    )


jax.tree_util.register_pytree_node(Population, _flatten, _unflatten)


def _grow_doses(leaf: Any, size: int) -> Any:
    widths = [(0, 0), (0, size - leaf.shape[1])]
    return np.pad(leaf, widths, mode="edge" if leaf.shape[1] and leaf.dtype != bool else "constant")
