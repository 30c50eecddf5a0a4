"""Durations of infusions (DUR, DURATION, TINF) as the rates that records have."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hierax.data.checking.problems import Problems

# RATE·DUR of an infusion may differ from AMT by this fraction of AMT, as after rounding to three digits.
_ROUNDING = 5e-3


def rates_from_durations(frame: pd.DataFrame, problems: Problems) -> None:
    """Set RATE to AMT/DUR in place, on doses that have a duration; other records keep theirs.

    The table must have all columns of records, as floats.
    """
    duration = frame["DUR"].fillna(0.0)
    amount = frame["AMT"]
    rate = frame["RATE"]
    dose, long = frame["EVID"].isin([1, 4]), duration > 0
    problems.add_rows(
        "dur_negative",
        frame,
        duration < 0,
        "DUR",
        "an infusion cannot last less than 0.",
        "give DUR > 0; 0 is a bolus.",
    )
    problems.add_rows(
        "dur_without_amt",
        frame,
        dose & long & ~(amount > 0) & (rate <= 0),
        "DUR",
        "an infusion over this time has no amount.",
        "give AMT; a constant infusion at steady state (AMT=0, SS=1, II=0) has a RATE and no DUR.",
    )
    modelled = rate.isin([-1, -2])
    problems.add_rows(
        "dur_modelled",
        frame,
        dose & long & modelled,
        "DUR",
        "the dose has a duration, but its RATE of -1 or -2 makes rate or duration a parameter of the model.",
        "set RATE=0 to use DUR, or DUR=0 to estimate.",
    )
    given = dose & long & (rate > 0)
    off = given & ((amount - rate * duration).abs() > _ROUNDING * amount.abs())
    problems.add_rows(
        "dur_rate",
        frame,
        off,
        "DUR",
        "RATE times DUR is not AMT, so they say two different infusions.",
        "give one of RATE and DUR, or correct them: DUR = AMT/RATE.",
    )
    here = dose & long & (rate == 0) & (amount > 0)
    # An amount over a very short time can overflow to infinity, which is reported below as a problem.
    with np.errstate(over="ignore"):
        found = rate.where(~here, amount / duration.where(here, 1.0))
    problems.add_rows(
        "dur_short", frame, ~np.isfinite(found), "DUR", "AMT/DUR is too large for a number.", "set DUR=0 for a bolus."
    )
    frame["RATE"] = found
    frame["_dur_idle"] = np.asarray(~dose & long)
