"""Errors in single records, and in a record compared with the one before it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from hierax.data.checking.problems import Problems
from hierax.data.reading.columns import DATES
from hierax.data.reading.restarts import period_column
from hierax.data.reading.rxode import FIRST

# Items that are 0 on every record that is not a dose.
DOSE_ITEMS = ("AMT", "RATE", "II", "ADDL", "SS")
# The largest ADDL that is accepted: a larger one is a typing error, and its doses could fill the memory.
MOST_DOSES = 10_000
# The largest size of the table of all doses, subjects times doses of a subject, for the same reasons.
_MOST_EXPANDED = 50_000_000

# Adds a problem: its code, the rows that have it, the column, what is wrong, and what to do.
Check = Callable[[str, pd.Series, str, str, str], None]


def check_records(frame: pd.DataFrame, problems: Problems) -> None:
    """Check a table that has all columns of records, as numbers."""

    def check(code: str, bad: pd.Series, column: str, problem: str, fix: str) -> None:
        problems.add_rows(code, frame, bad, column, problem, fix)

    _check_times(frame, check)
    _check_codes(frame, check)
    _check_items(frame, check)
    _check_amounts(frame, check)
    _check_repeats(frame, check)
    _check_steady_states(frame, check)
    _check_observations(frame, check)


def _check_times(frame: pd.DataFrame, check: Check) -> None:
    check("missing_time", frame["_time_missing"], "TIME", "a record without a time.", "give its TIME.")
    earlier = (frame["TIME"] < frame["TIME"].shift()) & frame["_code"].eq(frame["_code"].shift())
    earlier &= ~frame["EVID"].isin([3, 4])
    period = period_column(frame, earlier) if earlier.any() else None
    fix = "sort the subject's rows by TIME, or set EVID=3 or 4 on the row if the system was reset there"
    if period in DATES:
        fix = f"write {period} with its year, if the year has turned between the rows; or {fix}"
    if period is None:
        fix += "; for periods with clocks of their own, add a column that counts them and name it in restarts="
    else:
        fix += (
            f"; if {period} counts periods with clocks of their own, and no drug is carried over from the period "
            f"before, read_nonmem(restarts={period!r}) puts the resets in"
        )
    check(
        "time_decreases",
        earlier,
        "TIME",
        "TIME is less than on the row before, in the same subject, and no reset (EVID 3 or 4) starts the clock anew.",
        f"{fix}.",
    )


def _check_evid(frame: pd.DataFrame, check: Check) -> None:
    evid = frame["EVID"]
    others = evid.isin([5, 6, 7])
    check(
        "evid_rxode",
        others,
        "EVID",
        "EVID 5 (replace), 6 (multiply) and 7 (phantom dose) are rxode2's and are not read.",
        "write the event as doses and resets (EVID 1, 3, 4).",
    )
    classic = (evid > FIRST) & (evid % 1 == 0)
    check(
        "evid_rxode_classic",
        classic,
        "EVID",
        "this is a code of classic RxODE, as in the data sets of nlmixr (101: a bolus into compartment 1; 201: into "
        "compartment 2; 10101: an infusion into compartment 1 with its rate in AMT).",
        "read it with read_nonmem(evid='rxode'), or write EVID=1 with CMT, and RATE for infusions.",
    )
    check(
        "evid_code",
        ~evid.isin([0, 1, 2, 3, 4]) & ~others & ~classic,
        "EVID",
        "EVID must be 0, 1, 2, 3 or 4.",
        "use 0 (observation), 1 (dose), 2 (other), 3 (reset) or 4 (reset and dose).",
    )


def _check_codes(frame: pd.DataFrame, check: Check) -> None:
    _check_evid(frame, check)
    check(
        "mdv_code",
        ~frame["MDV"].isin([0, 1, 100, 101]),
        "MDV",
        "MDV must be 0, 1, 100 or 101.",
        "use 0 (observed), 1 (missing), or 100 and 101 for the same, left out of estimation.",
    )
    check(
        "mdv_dose",
        frame["MDV"].isin([100, 101]) & frame["EVID"].isin([1, 3, 4]),
        "MDV",
        "a dose or reset cannot be left out of estimation only, because predictions would then differ from the fit.",
        "set MDV=1, or delete the row.",
    )
    check(
        "cmt_negative",
        frame["CMT"] < 0,
        "CMT",
        "a negative CMT (turning a compartment off) is not read.",
        "end the input with a record of its own, or reset the system (EVID 3).",
    )
    check(
        "cmt",
        (frame["CMT"] >= 0) & ((frame["CMT"] % 1 != 0) | (frame["CMT"] > 1000)),
        "CMT",
        "CMT must be 0 or a positive whole number.",
        "number the compartments from 1; 0 is the model's default.",
    )
    check(
        "cens_code",
        ~frame["CENS"].isin([-1, 0, 1]),
        "CENS",
        "CENS is 1 (below DV), -1 (above DV) or 0.",
        "use one of these.",
    )


def _check_items(frame: pd.DataFrame, check: Check) -> None:
    items = (frame[list(DOSE_ITEMS)] != 0).any(axis=1)
    column = np.select([frame[name] != 0 for name in DOSE_ITEMS], DOSE_ITEMS, "AMT")
    for name in DOSE_ITEMS:
        check(
            "dose_items",
            frame["EVID"].isin([0, 2, 3]) & items & (column == name),
            name,
            f"the record is not a dose, but has a value in a column of doses ({', '.join(DOSE_ITEMS)}).",
            "set EVID=1 (or 4, to reset first), or these columns to 0.",
        )


def _check_amounts(frame: pd.DataFrame, check: Check) -> None:
    dose = frame["EVID"].isin([1, 4])
    amount, rate = frame["AMT"], frame["RATE"]
    constant = (frame["SS"] != 0) & (frame["II"] == 0) & ((rate > 0) | (rate == -1))
    check("amt_negative", dose & (amount < 0), "AMT", "a dose cannot be negative.", "give a positive AMT.")
    check(
        "rate_without_amt",
        dose & (amount == 0) & (rate != 0) & ~constant,
        "RATE",
        "the infusion has no amount, but only a constant infusion at steady state (SS=1, II=0, RATE>0) may have none.",
        "give AMT; its duration is AMT/RATE.",
    )
    check(
        "amt",
        dose & (amount == 0) & (rate == 0),
        "AMT",
        "a dose needs a positive amount.",
        "give AMT, or EVID=2.",
    )
    check(
        "rate",
        dose & (rate < 0) & ~rate.isin([-1, -2]),
        "RATE",
        "RATE must be 0 (bolus), positive, -1 (the rate is a parameter) or -2 (the duration is one).",
        "give the rate itself, or -1 or -2.",
    )


def _check_repeats(frame: pd.DataFrame, check: Check) -> None:
    dose = frame["EVID"].isin([1, 4])
    addl = frame["ADDL"]
    check(
        "addl_negative",
        dose & (addl < 0),
        "ADDL",
        "a negative ADDL (NONMEM's empirical steady state) is not read.",
        "use SS=1 with II for the steady state itself.",
    )
    check(
        "addl",
        dose & (addl > 0) & ((addl % 1 != 0) | (addl > MOST_DOSES)),
        "ADDL",
        f"ADDL must be a whole number from 0 to {MOST_DOSES}.",
        "give the number of additional doses.",
    )
    check(
        "ii",
        dose & (addl > 0) & (frame["SS"] == 0) & ~(frame["II"] > 0),
        "II",
        "ADDL needs an interval.",
        "give II > 0.",
    )
    check("ii_negative", dose & (frame["II"] < 0), "II", "an interval cannot be negative.", "give II > 0.")
    total = addl.where(dose & (addl > 0), 0).groupby(frame["_id"], sort=False).sum()
    if len(total) * (total.max() + 1) > _MOST_EXPANDED:
        heaviest = (frame["_id"] == total.idxmax()) & (addl == addl[frame["_id"] == total.idxmax()].max())
        check(
            "addl_total",
            heaviest & ~heaviest.duplicated(),
            "ADDL",
            f"with this subject's doses, the table of all doses would have more than {_MOST_EXPANDED} entries.",
            "check ADDL, or give long regimens as a steady state (SS=1).",
        )


def _check_steady_states(frame: pd.DataFrame, check: Check) -> None:
    dose = frame["EVID"].isin([1, 4])
    steady = dose & frame["SS"].isin([1, 2, 3])
    amount, rate, interval = frame["AMT"], frame["RATE"], frame["II"]
    check(
        "ss",
        dose & ~frame["SS"].isin([0, 1, 2, 3]),
        "SS",
        "SS must be 0, 1 (replace the state), 2 (add to it) or 3 (read as 1).",
        "use one of these.",
    )
    check(
        "ss_without_ii",
        steady & (amount > 0) & ~(interval > 0),
        "II",
        "a steady state of repeated doses needs its interval.",
        "give II > 0; or AMT=0 and RATE>0 for a constant infusion.",
    )
    constant = steady & (amount == 0) & (rate != 0)
    check(
        "ss_constant",
        constant & (frame["ADDL"] > 0),
        "ADDL",
        "a constant infusion at steady state has reached its plateau and ends there, so it has no additional doses.",
        "set ADDL=0.",
    )


def _check_observations(frame: pd.DataFrame, check: Check) -> None:
    observed = frame["_observed"]
    check(
        "dv_missing",
        observed & frame["DV"].isna() & (frame["CENS"] != 0),
        "DV",
        "a censored observation without its limit.",
        "give in DV the limit that it is below (CENS=1) or above (CENS=-1).",
    )
    check(
        "dv_missing",
        observed & frame["DV"].isna(),
        "DV",
        "an observation without a value.",
        "give DV, or set MDV=1 or EVID=2 on the row.",
    )
    if "LIMIT" in frame.columns:
        wrong = (frame["CENS"] == 1) & (frame["LIMIT"] >= frame["DV"])
        wrong |= (frame["CENS"] == -1) & (frame["LIMIT"] <= frame["DV"])
        check(
            "limit",
            observed & wrong,
            "LIMIT",
            "LIMIT is the other end of the interval: below DV where CENS=1, above it where CENS=-1.",
            "correct LIMIT, or leave it empty for an open end.",
        )
    if "OCC" in frame.columns:
        check("missing_occ", frame["OCC"].isna(), "OCC", "a record without an occasion.", "give its OCC.")
