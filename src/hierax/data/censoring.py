"""The limits of quantification of censored records, and the censoring of simulated data at them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from hierax.data.population import Population


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of quantification of an endpoint, (subject, time); infinite where nothing is censored.

    Attributes
    ----------
    lower, upper : arrays
        A value below ``lower`` is censored from the left, one above ``upper`` from the right.
    low_end, high_end : arrays
        The other ends of the intervals (LIMIT) that censored values are known to lie in.
    assumed : str
        What was assumed about the limits of records that are not censored, in words; empty if nothing was.
    """

    lower: np.ndarray
    upper: np.ndarray
    low_end: np.ndarray
    high_end: np.ndarray
    assumed: str

    def codes(self, values: np.ndarray) -> np.ndarray:
        """Return the censoring codes of values (..., subject, time): 1 left, -1 right, 0 none."""
        return np.where(values < self.lower, 1, np.where(values > self.upper, -1, 0))


def limits_of(pop: Population, name: str, lloq: Any = None, uloq: Any = None) -> Limits:
    """Return the limits of quantification of an endpoint, inferred from its censored records.

    A data set states limits for censored records only. If these agree, every record is taken to have that limit. If
    they differ, a quantified record is taken to have the limit of its subject's censored records where these agree,
    else the most frequent limit of all; but never a limit that its own value contradicts.

    Parameters
    ----------
    lloq, uloq : float or array, (subject, time), optional
        The limits, where the user knows them.
    """
    shape = np.shape(pop.times)
    codes = np.asarray(pop.cens.get(name, np.zeros(shape, int)))
    seen = np.asarray(pop.mask[name]) & np.asarray(pop.subject_mask)[:, None]
    codes, values = np.where(seen, codes, 0), np.asarray(pop.dv[name], float)
    ends = np.asarray(pop.limit.get(name, np.full(shape, np.nan)), float)
    assumed = []
    found = {}
    for code, given, side in ((1, lloq, "lower"), (-1, uloq, "upper")):
        here = codes == code
        if given is not None:
            found[code] = np.broadcast_to(np.asarray(given, float), shape)
        else:
            found[code], text = _limit_of_every_record(values, here, seen, code)
            assumed += [f"{len(np.unique(values[here]))} {side} limits ({text})"] if text else []
        # For the other ends of the intervals, the most frequent one is used for all records.
        known = ends[here & np.isfinite(ends)]
        found[10 * code] = np.full(shape, _commonest(known) if known.size else -code * np.inf)
    return Limits(found[1], found[-1], found[10], found[-10], "; ".join(assumed))


def _limit_of_every_record(values: np.ndarray, here: np.ndarray, seen: np.ndarray, code: int) -> tuple[np.ndarray, str]:
    """Return a limit for every record, inferred from the censored ones, and a text that says what was assumed."""
    none = np.full(values.shape, -code * np.inf)
    if not here.any():
        return none, ""
    distinct = np.unique(values[here])
    out, text = np.full(values.shape, _commonest(values[here])), ""
    if len(distinct) > 1:
        shown = ", ".join(f"{value:g}" for value in distinct[:5]) + (", ..." if len(distinct) > 5 else "")
        text = (
            f"{shown}; a quantified record is taken to have the limit of its subject's censored records, or else "
            f"{out.flat[0]:g}"
        )
        for row in np.flatnonzero(here.any(1)):
            own = np.unique(values[row][here[row]])
            if len(own) == 1:
                out[row] = own[0]
    out = np.where(here, values, out)
    # A quantified value beyond the assumed limit shows that another one applied: the nearest that fits, or none.
    beyond = seen & ~here & ((values < out) if code == 1 else (values > out))
    for place in zip(*np.nonzero(beyond), strict=True):
        fits = distinct[distinct <= values[place]] if code == 1 else distinct[distinct >= values[place]]
        out[place] = none[place] if not fits.size else fits.max() if code == 1 else fits.min()
    return out, text


def _commonest(values: np.ndarray) -> float:
    levels, counts = np.unique(values, return_counts=True)
    return float(levels[counts.argmax()])


def with_drawn(pop: Population, drawn: Mapping[str, np.ndarray], limits: Mapping[str, Limits]) -> Population:
    """Return the population with simulated observations (subject, time), censored at the limits of its own data."""
    out = pop.with_dv(**drawn)
    cens, limit, dv, records = dict(out.cens), dict(out.limit), dict(out.dv), dict(out.records)
    kinds = dict(pop.censoring)
    for name in [name for name in drawn if name in kinds]:
        own, values, mask = limits[name], np.asarray(out.dv[name]), np.asarray(out.mask[name])
        codes = np.where(mask, own.codes(values), 0)
        # Of a value beyond the interval's other end it is only known that it is below (above) the limit.
        low = np.where(values < own.low_end, -np.inf, own.low_end)
        high = np.where(values > own.high_end, np.inf, own.high_end)
        dv[name] = np.where(codes == 1, own.lower, np.where(codes == -1, own.upper, values))
        cens[name] = codes.astype(np.int32)
        limit[name] = np.where(codes > 0, low, np.where(codes < 0, high, np.inf))
        records["cens"] = np.where(mask, codes.astype(float), records["cens"])
        records["dv"] = np.where(mask, dv[name], records["dv"])
        if "limit" in records:
            finite = (codes != 0) & np.isfinite(limit[name])
            records["limit"] = np.where(mask, np.where(finite, limit[name], np.nan), records["limit"])
    return dataclasses.replace(out, dv=dv, cens=cens, limit=limit, records=records, censoring=pop.censoring)
