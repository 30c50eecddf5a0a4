"""Regimens and subjects written by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from hierax.arguments import whole

# The value of rate= or duration= that makes it a parameter of the structural model (RATE -1 and -2).
MODELLED = "modelled"


@dataclasses.dataclass(frozen=True, init=False)
class Regimen:
    """Doses over time: one course, or several joined by ``+``.

    Parameters
    ----------
    amount : float
        Amount of each dose. 0 for a constant infusion at steady state, and for a reset alone.
    time : float
        Time of the first dose.
    interval : float
        Time between doses, and the period of a steady state.
    count : int
        Number of doses.
    route : int or str
        Compartment that is dosed: its number, or a name that ``compartments=`` numbers.
    rate, duration : float or "modelled"
        Infusion at this rate, or over this time: at most one of the two. ``"modelled"`` makes it a parameter of
        the structural model (RATE -1 and -2).
    steady : {0, 1, 2}
        1 starts at the steady state of this regimen, 2 adds it to the amounts already present (SS).
    reset : bool
        Whether all amounts are set to zero before the first dose (EVID 4; EVID 3 without an amount).

    Examples
    --------
    >>> loading = hx.Regimen(200) + hx.Regimen(100, time=12, interval=12, count=9)
    >>> later = loading.shift(24)
    """

    rows: tuple[Mapping[str, Any], ...]

    def __init__(
        self,
        amount: float = 0.0,
        *,
        time: float = 0.0,
        interval: float = 0.0,
        count: int = 1,
        route: int | str = 1,
        rate: float | str | None = None,
        duration: float | str | None = None,
        steady: int = 0,
        reset: bool = False,
    ):
        if rate is not None and duration is not None:
            raise ValueError("A regimen has a rate or a duration, not both, because each follows from the other.")
        if not 0 <= amount < np.inf:
            raise ValueError(f"amount={amount} must be a finite number of 0 or more. Check the dose.")
        if not np.isfinite(time):
            raise ValueError(f"time={time} must be finite, because it is the time of the first dose. Give that time.")
        whole("count", count, 1)
        if interval and count == 1 and not steady:
            raise ValueError(
                f"interval={interval} is the time between doses, but there is only one dose. Give the number of "
                f"doses (count=), or make it a steady state (steady=1)."
            )
        if count > 1 and not interval > 0:
            raise ValueError(f"count={count} doses need the time between them. Give interval > 0.")
        if duration is not None and duration != MODELLED and not float(duration) > 0:
            raise ValueError(
                f"duration={duration} must be above 0, because it is the duration of an infusion. Leave it out for a "
                f"bolus."
            )
        alone = reset and amount == 0 and rate is None and not steady
        row = {
            "TIME": float(time),
            "AMT": float(amount),
            "EVID": 3 if alone else 4 if reset else 1,
            "CMT": route,
            "RATE": _rate_code(amount, rate, duration),
            "II": float(interval) if count > 1 or steady else 0.0,
            "ADDL": int(count) - 1,
            "SS": int(steady),
        }
        object.__setattr__(self, "rows", (row,))

    def __add__(self, other: Regimen) -> Regimen:
        """Return a regimen with the doses of both."""
        return _regimen(self.rows + other.rows)

    def shift(self, by: float) -> Regimen:
        """Return the same doses, later by ``by`` (earlier if negative)."""
        return _regimen(tuple({**row, "TIME": row["TIME"] + by} for row in self.rows))

    def scale(self, factor: float) -> Regimen:
        """Return the same regimen with every amount (and every given rate) times ``factor``."""
        return _regimen(
            tuple({**row, "AMT": row["AMT"] * factor, "RATE": _scaled(row["RATE"], factor)} for row in self.rows)
        )

    def to_frame(self) -> pd.DataFrame:
        """Return the dose records in NONMEM's columns, in the order of time."""
        return pd.DataFrame(list(self.rows)).sort_values("TIME", kind="stable", ignore_index=True)


def _regimen(rows: tuple[Mapping[str, Any], ...]) -> Regimen:
    out = object.__new__(Regimen)
    object.__setattr__(out, "rows", rows)
    return out


def _rate_code(amount: float, rate: float | str | None, duration: float | str | None) -> float:
    if rate == MODELLED:
        return -1.0
    if duration == MODELLED:
        return -2.0
    if rate is not None:
        return float(rate)
    return 0.0 if duration is None else float(amount) / float(duration)


def _scaled(rate: float, factor: float) -> float:
    return rate * factor if rate > 0 else rate


@dataclasses.dataclass(frozen=True)
class Subject:
    """One subject, written by hand: its doses, times, observations and covariates.

    Parameters
    ----------
    id : int or str
        Its ID.
    regimen : Regimen, optional
        Its doses.
    times : array, (time,)
        Times of the records that are not doses.
    observations : mapping, optional
        Endpoint → observed values at ``times``, NaN where there is none.
    covariates : mapping, optional
        Name → value (a number or a category), a vector (array), or ``(times, values)`` where it varies.

    Examples
    --------
    >>> one = hx.Subject('A', hx.Regimen(100), [1.0, 4.0], {'dv': [4.2, 2.9]})
    >>> len(hx.Population.from_subjects([one]))
    1
    """

    id: Any
    regimen: Regimen | None = None
    times: Any = ()
    observations: Mapping[str, Any] | None = None
    covariates: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        count = len(np.atleast_1d(np.asarray(self.times, float)))
        for name, values in (self.observations or {}).items():
            if np.shape(values) != (count,):
                raise ValueError(
                    f"Subject {self.id!r} has {count} times, but observations of '{name}' of shape {np.shape(values)}. "
                    f"Give one value a time, NaN where nothing was observed."
                )
