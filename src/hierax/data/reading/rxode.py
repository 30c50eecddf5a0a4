"""EVID codes of classic RxODE (101, 10101, ...), as in the data sets of nlmixr: translated into records of doses.

A code is 10000·kind + 100·compartment + flag: 101 is a bolus into compartment 1, 201 into compartment 2, 10101 an
infusion into compartment 1 whose AMT is its rate, which a later record with AMT of minus that rate ends.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from hierax.data.checking.problems import Problems

# The smallest code of classic RxODE; smaller values of EVID are those of NONMEM.
FIRST = 100
# Flag of a code → its SS: 1 is a dose, 10 and 20 are steady states, 40 is a constant infusion at steady state.
_STEADY = {1: 0.0, 10: 1.0, 20: 2.0, 40: 1.0}
# Kinds of events that are not read, in words.
_KINDS = {
    2: "an infusion of fixed duration",
    4: "replacing an amount",
    5: "multiplying an amount",
    6: "the start of a modelled duration",
    7: "the end of a modelled duration",
    8: "the end of a modelled rate",
    9: "the start of a modelled rate",
}


def translate_rxode(frame: pd.DataFrame, problems: Problems) -> None:
    """Turn classic codes into EVID, CMT, AMT, RATE and SS in place; other EVIDs stay as they are."""
    code = frame["EVID"].fillna(0.0)
    classic = (code >= FIRST) & (code % 1 == 0)
    if not classic.any():
        return
    for name in ("AMT", "RATE", "II", "ADDL", "SS", "CMT"):
        if name not in frame.columns:
            frame[name] = 0.0
    whole = code.where(classic, 0).astype(int)
    kind, flag = whole // 10_000 % 10, whole % 100
    compartment = whole // 100_000 * 100 + whole // 100 % 100
    known = kind.isin([0, 1]) & flag.isin(list(_STEADY)) & (compartment > 0) & ~((kind == 0) & (flag == 40))
    for number, what in _KINDS.items():
        _refuse(frame, problems, classic & (kind == number), f"in classic RxODE this is {what}, which is not read.")
    _refuse(frame, problems, classic & ~known, "this is not a code of a dose or an infusion in classic RxODE.")
    dose = classic & known
    # The code alone tells compartment and steady state, whatever the columns CMT and SS say.
    frame["CMT"] = frame["CMT"].where(~dose, compartment.astype(float))
    frame["SS"] = frame["SS"].where(~dose, flag.map(_STEADY))
    frame["EVID"] = code.where(~classic, 1.0)
    _infusions(frame, dose & (kind == 1), flag == 40, problems)


def _refuse(frame: pd.DataFrame, problems: Problems, bad: pd.Series, problem: str) -> None:
    fix = "write the event as doses and resets (EVID 1, 3, 4), with RATE or DUR for infusions."
    problems.add_rows("evid_rxode_kind", frame, bad, "EVID", problem, fix)


def _infusions(frame: pd.DataFrame, infusion: pd.Series, constant: pd.Series, problems: Problems) -> None:
    """Give every infusion its amount in place: its rate times the time until the record that ends it."""
    rate = frame["AMT"].fillna(0.0)
    steady = infusion & constant
    frame["RATE"] = frame["RATE"].where(~infusion, rate.clip(lower=0.0))
    # A constant infusion at steady state ends at its own record, so that it has no amount.
    frame["AMT"] = frame["AMT"].where(~steady, 0.0)
    running = infusion & ~constant
    waiting: dict[tuple[int, float, float], list[int]] = {}
    amount, evid, lost = frame["AMT"].to_numpy(float, copy=True), frame["EVID"].to_numpy(float, copy=True), []
    repeats = frame[["ADDL", "II"]].fillna(0.0).to_numpy(float)
    unlike = []
    for row in np.flatnonzero(running).tolist():
        key = (int(frame["_code"].iloc[row]), float(frame["CMT"].iloc[row]), abs(float(rate.iloc[row])))
        if rate.iloc[row] > 0:
            waiting.setdefault(key, []).append(row)
            continue
        evid[row], amount[row] = 2.0, 0.0
        if not waiting.get(key):
            lost.append(row)
            continue
        start = waiting[key].pop(0)
        amount[start] = key[2] * (frame["TIME"].iloc[row] - frame["TIME"].iloc[start])
        if (repeats[start] != repeats[row]).any():
            unlike.append(start)
    lost += [row for rows in waiting.values() for row in rows]
    ends = running & (evid == 2.0)
    _tell(frame, problems, lost, "starts or ends an infusion whose other record is missing")
    _tell(frame, problems, unlike, "starts an infusion whose ADDL or II is not that of the record that ends it")
    frame["AMT"], frame["EVID"] = amount, evid
    for name in ("RATE", "II", "ADDL", "SS"):
        frame[name] = frame[name].where(~ends, 0.0)


def _tell(frame: pd.DataFrame, problems: Problems, rows: list[int], what: str) -> None:
    bad = np.zeros(len(frame), bool)
    bad[rows] = True
    problems.add_rows(
        "evid_rxode_infusion",
        frame,
        bad,
        "AMT",
        f"by its classic RxODE code, the record {what} (AMT is the rate: R starts it, -R ends it).",
        "give the missing record, or write the infusion as one dose (EVID 1, AMT, RATE).",
    )
