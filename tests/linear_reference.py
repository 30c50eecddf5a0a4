"""An independent walk through dosing records: one subject, one event at a time, by SciPy's matrix exponential.

Nothing here is shared with the library: records are plain dicts, steady states are sums of hundreds of past doses.
"""

import numpy as np
from scipy.linalg import expm

PAST = 400


def matrix(k, exchange=(), ka=None):
    """Return the rate matrix of (depot,) central, peripherals."""
    n = 1 + len(exchange)
    first = 0 if ka is None else 1
    a = np.zeros((n + first, n + first))
    c = first
    a[c, c] = -k
    for p, (out, back) in enumerate(exchange, start=1):
        a[c, c] -= out
        a[c + p, c] = out
        a[c + p, c + p] = -back
        a[c, c + p] = back
    if ka is not None:
        a[0, 0] = -ka
        a[c, 0] = ka
    return a


def expand(record, F=1.0, lag=0.0, rate=None, duration=None, end=np.inf):
    """Return the arrivals of a dose record as (time, amount, rate, duration), past doses of a steady state too."""
    amount, speed = F * record.get("AMT", 0.0), record.get("RATE", 0.0)
    if speed == -1:
        speed = rate
    if speed == -2:
        length, speed = duration, amount / duration
    else:
        length = amount / speed if speed > 0 else 0.0
    interval, steady = record.get("II", 0.0), record.get("SS", 0)
    if steady and interval == 0:
        # A constant infusion that ends at its record.
        return [(record["TIME"] - 1e4, speed * 1e4, speed, 1e4)]
    first = -PAST if steady else 0
    numbers = range(first, int(record.get("ADDL", 0)) + 1)
    return [(record["TIME"] + lag + n * interval, amount, speed, length) for n in numbers]


def walk(records, system, doses=None, governing="nocb"):
    """Return the amounts at every record, (record, state).

    ``system``: a rate matrix, or one for every record. ``doses``: keyword arguments of :func:`expand` for each record.
    """
    n = len(records)
    systems = system if isinstance(system, list) else [system] * n
    doses = doses or [{}] * n
    size = systems[0].shape[0]
    starts = [0]
    for j, record in enumerate(records):
        if j and (record["EVID"] in (3, 4) or (record["EVID"] == 1 and record.get("SS", 0) in (1, 3))):
            starts.append(j)
    starts.append(n)
    out = np.zeros((n, size))
    for begin, end in zip(starts, starts[1:], strict=False):
        out[begin:end] = _segment(records, systems, doses, governing, begin, end, size)
    return out


def _segment(records, systems, doses, governing, begin, end, size):
    """Walk one part of the history: superpose the doses of its records, each followed from its arrival."""
    out = np.zeros((end - begin, size))
    for j in range(begin, end):
        if records[j]["EVID"] not in (1, 4):
            continue
        cmt = max(int(records[j].get("CMT", 1)), 1) - 1
        for arrival, amount, rate, length in expand(records[j], **doses[j]):
            out += _follow(records, systems, governing, begin, end, j, cmt, arrival, amount, rate, length)
    return out


def _follow(records, systems, governing, begin, end, j, cmt, arrival, amount, rate, length):
    """Return what one dose leaves at the records of its segment."""
    size = systems[0].shape[0]
    state, clock, out = np.zeros(size), arrival, np.zeros((end - begin, size))
    given = False
    for r in range(begin, end):
        time = records[r]["TIME"]
        past = records[j].get("SS", 0) and arrival < records[j]["TIME"]
        if time < arrival or (time == arrival and r < j) or (past and r < j) or (records[j].get("SS", 0) and r < j):
            continue
        if not given:
            given = True
            if rate == 0:
                state = np.eye(size)[cmt] * amount
        for left, right, a in _pieces(records, systems, governing, begin, r, j, clock, time):
            on = max(0.0, min(right, arrival + length) - left) if rate > 0 else 0.0
            if on > 0:
                state = _flow(a, on, state, rate, cmt)
            state = _flow(a, right - left - on, state, 0.0, cmt)
        clock = max(clock, time)
        out[r - begin] = state
    return out


def _pieces(records, systems, governing, begin, r, j, clock, time):
    """Cut [clock, time] where parameters change, with the matrix of each piece.

    Before the dose's own record its parameters hold (a steady state's past).
    """
    own = records[j]["TIME"]
    if clock < own and records[j].get("SS", 0):
        yield clock, min(own, time), systems[j]
        clock = min(own, time)
    for q in range(max(begin, 1), r + 1):
        left, right = records[q - 1]["TIME"], records[q]["TIME"]
        if q == begin:
            continue
        cuts = {"nocb": [(left, right, q)], "locf": [(left, right, q - 1)]}.get(
            governing, [(left, 0.5 * (left + right), q - 1), (0.5 * (left + right), right, q)]
        )
        for a, b, owner in cuts:
            a, b = max(a, clock), min(b, time)
            if b > a:
                yield a, b, systems[owner]


def _flow(a, dt, state, rate, cmt):
    if dt <= 0:
        return state
    size = len(state)
    big = np.zeros((size + 1, size + 1))
    big[:size, :size] = a
    big[cmt, size] = rate
    return (expm(big * dt) @ np.append(state, 1.0))[:size]
