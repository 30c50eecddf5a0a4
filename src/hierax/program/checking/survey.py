"""How a program uses the data that it is given, found out while its sites are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from hierax.data.population import Population
from hierax.dynamics.notes import Note
from hierax.errors import ModelError, tell
from hierax.privately import mask_of
from hierax.program.trace import Run


class Survey(NamedTuple):
    """Values of a run, to be compared with the data.

    Attributes
    ----------
    about : list of bool arrays
        Which subjects each note of a structural model is about.
    counted : dict of bool arrays, (subject, time)
        Which entries each data site on the record axis counts.
    value : dict of arrays
        The data of these sites, of the site's own shape.
    outside : dict of bool arrays, (subject, time)
        Which data a discrete distribution cannot produce: counts of 1.5, answers of 2 to a yes-or-no question.
    """

    about: list[Any]
    counted: dict[str, Any]
    value: dict[str, Any]
    outside: dict[str, Any]


# Names of NumPyro's distributions that account for the censoring of a record.
_CENSORED = {
    kind.__name__
    for kind in (dist.LeftCensoredDistribution, dist.RightCensoredDistribution, dist.IntervalCensoredDistribution)
}

# A compiled function of a population and population parameters that returns the survey of one run.
Look = Callable[[Population, Mapping[str, Any]], Survey]


def survey(run: Run, notes: list[Note], pop: Population, data: list[str]) -> Survey:
    """Return the survey of a run, inside traced code."""
    counted, value, outside = {}, {}, {}
    for name in data:
        msg = run.messages[name]
        base = unwrap(msg["fn"])[1]
        if name in pop.dv and name not in pop.cens and base.is_discrete:
            # The original data are checked, because the values of the site have been rounded to whole numbers.
            good = base.support(jnp.asarray(pop.dv[name]))
            outside[name] = jnp.broadcast_to(~good, jnp.shape(pop.mask[name])) & pop.mask[name]
        mask = _counted(msg["fn"], (pop.n_subjects, pop.n_records))
        if mask is not None:
            counted[name], value[name] = mask, msg["value"]
    return Survey([jnp.asarray(note.about) for note in notes], counted, value, outside)


def unwrap(fn: Any) -> tuple[Any, Any]:
    """Return the mask of an observed distribution, and the distribution without masks, expansions and event axes."""
    mask = None
    while isinstance(fn, dist.MaskedDistribution | dist.ExpandedDistribution | dist.Independent):
        if isinstance(fn, dist.MaskedDistribution) and mask_of(fn) is not True:
            mask = mask_of(fn) if mask is None else mask & mask_of(fn)
        fn = fn.base_dist
    return mask, fn


def _counted(fn: Any, shape: tuple[int, int]) -> Any:
    """Return which entries of the record axis count as data of a site, or None if the site is on another axis."""
    full = tuple(fn.batch_shape) + tuple(fn.event_shape)
    while len(full) > 2 and full[-1] == 1:
        full = full[:-1]
    squeezed = tuple(size for size in full[:-1] if size != 1)
    if shape[1] < 2 or not full or full[-1] != shape[1] or squeezed not in ((shape[0],), ()):
        return None
    mask = unwrap(fn)[0]
    if mask is None:
        return jnp.ones(shape, bool)
    # If the records are an event axis, a mask of the batch shape counts or leaves out all records of a subject.
    mask = jnp.asarray(mask)
    wide = mask.reshape(mask.shape + (1,) * (len(full) - mask.ndim)) if mask.ndim < len(full) and mask.ndim else mask
    return jnp.broadcast_to(jnp.broadcast_to(wide, full).reshape((-1, shape[1])), shape)


def _uncounted(look: Look, found: Survey, pop: Population, params: Mapping[str, Any]) -> list[str]:
    """Return a sentence for every site that counts entries which are no observations of its endpoints."""
    real = np.asarray(pop.subject_mask)[:, None]
    masks = {name: np.asarray(mask) & real for name, mask in pop.mask.items()}
    out = []
    for name, counted in found.counted.items():
        counted = np.asarray(counted) & real
        if not any(mask.any() for mask in masks.values()) or not (counted & ~np.asarray(masks.get(name, False))).any():
            continue
        read = _endpoints(look, found, pop, params, name)
        wrong = counted & ~np.any([masks[endpoint] for endpoint in read], axis=0) if read else np.zeros_like(counted)
        if not wrong.any():
            continue
        padding = int((wrong & ~np.asarray(pop.record_mask)).sum())
        dosed = _doses(pop)
        parts = {"dose rows": int((wrong & dosed).sum()), "entries of padding": padding}
        parts["other rows"] = int(wrong.sum()) - sum(parts.values())
        listed = ", ".join(f"{count} {what}" for what, count in parts.items() if count)
        has = (
            "has no mask on" if counted.all() or counted.sum() == real.sum() * pop.n_records else "has another mask on"
        )
        right = int(counted.sum() - wrong.sum())
        out.append(
            f"Data site '{name}' {has} the record axis, so that it counts {int(wrong.sum())} entries that are not "
            f"observations ({listed}) as data, besides {right} observations. Write hx.observe('{read[0]}', "
            f"distribution, pop), or put the site under numpyro.handlers.mask(mask=pop.mask['{read[0]}'])."
        )
    return out


def _uncensored(sites: Any, found: Survey, pop: Population, params: Mapping[str, Any]) -> list[str]:
    """Return a sentence for every site that counts censored records as if they had been quantified."""
    out = []
    for name, counted in found.counted.items() if pop.cens else ():
        if sites.data[name].distribution in _CENSORED:
            continue
        for endpoint in _endpoints(sites.look, found, pop, params, name):
            off = np.asarray(pop.cens.get(endpoint, 0)) != 0
            number = int((off & np.asarray(counted) & np.asarray(pop.subject_mask)[:, None]).sum())
            if number:
                out.append(
                    f"Data site '{name}' counts {number} censored records of '{endpoint}' as if they had been "
                    f"quantified. Write hx.observe('{endpoint}', distribution, pop), which counts them as below or "
                    f"above their limit."
                )
    return out


def _refuse_impossible(sites: Any, found: Survey, pop: Population) -> None:
    """Refuse data that a discrete distribution cannot produce, which would be rounded or have no density.

    Raises
    ------
    ModelError
        Names the site, how many such data there are, and the first one.
    """
    ids = dict(zip(np.flatnonzero(np.asarray(pop.subject_mask)), pop.subject_ids, strict=True))
    for name, outside in found.outside.items():
        bad = np.asarray(outside) & np.asarray(pop.subject_mask)[:, None]
        if bad.any():
            row, column = np.argwhere(bad)[0]
            kind = sites.data[name].distribution.removeprefix("Smooth")
            raise ModelError(
                f"Data site '{name}' is {kind}, which cannot produce {int(bad.sum())} of its "
                f"data; the first is {float(np.asarray(pop.dv[name])[row, column]):g} at subject {ids[row]}, time "
                f"{float(np.asarray(pop.times)[row, column]):g}. Correct the data, or use another distribution."
            )


def _doses(pop: Population) -> np.ndarray:
    """Return which records are doses or resets, (subject, time)."""
    evid = np.asarray(pop.records.get("evid", np.zeros(np.shape(pop.times))))
    return np.asarray(pop.record_mask) & (evid > 0)


def _endpoints(look: Look, found: Survey, pop: Population, params: Mapping[str, Any], name: str) -> list[str]:
    """Return the endpoints whose values a data site reads, found out by a change of these values."""
    out = []
    for endpoint, values in pop.dv.items():
        other = dataclasses.replace(pop, dv={**pop.dv, endpoint: np.asarray(values) + 1.0})
        same = np.array_equal(look(other, params).value[name], found.value[name], equal_nan=True)
        if not same:
            out.append(endpoint)
    return out


def warn_of_data(
    sites: Any, pop: Population, params: Mapping[str, Any] | None = None, *, observed: bool = True
) -> list[str]:
    """Warn of probable mistakes in how a program uses these data, and return the notes that need no warning.

    A note is harmless if the predictions are right all the same; ``hx.check`` prints these.

    Parameters
    ----------
    params : mapping, optional
        Values of population parameters, constrained, at which the program is run; by default its own start values.
    observed : bool
        Whether to check the data sites too (masks, censoring, impossible values). A design that is yet to be simulated
        has no data to check.

    Raises
    ------
    ModelError
        If there are data that a discrete distribution cannot produce.
    """
    # The program is compiled anew for given parameters. They are therefore ignored, and its own start values used,
    # where no warning can depend on the values.
    at = dict(params or {}) if any(not note.harmless for note in sites.notes) else {}
    found = sites.look(pop, at)
    rows = np.flatnonzero(np.asarray(pop.subject_mask))
    harmless = []
    if observed:
        _refuse_impossible(sites, found, pop)
    said = [*_uncounted(sites.look, found, pop, at), *_uncensored(sites, found, pop, at)] if observed else []
    for note, about in zip(sites.notes, found.about, strict=True):
        about = np.asarray(about)
        which = True if about.ndim == 0 and about else np.broadcast_to(about, (pop.n_subjects,))[rows]
        text = note.sentence(which, pop.subject_ids)
        if text is not None:
            (harmless if note.harmless else said).append(text)
    for text in said:
        tell(text)
    return harmless
