import numpy as np
import pandas as pd
import pytest

import hierax as hx


def times(time, units=None, **columns):
    base = {"ID": 1, "TIME": time, "DV": np.arange(1.0, len(time) + 1)}
    return hx.read_nonmem(pd.DataFrame(base | columns), units=units)


def test_clock_times_are_hours_since_the_first_record():
    # NONMEM's own example: 8:00, 14:45 and 14.75 are 0, 6.75 and 6.75.
    assert times(["8:00", "14:45", "14.75"]).times.tolist() == [[0.0, 6.75, 6.75]]
    # Hours may pass 24, and seconds and am/pm are read.
    assert times(["20:00", "26:30:36"]).times.tolist() == [[0.0, 6.51]]
    assert times(["11:00 AM", "12:00 PM", "1:30 pm"]).times.tolist() == [[0.0, 1.0, 2.5]]


def test_each_subject_has_a_clock_of_its_own():
    pop = times(["8:00", "9:00", "10:00", "10:30"], ID=[1, 1, 2, 2])
    assert pop.times.tolist() == [[0.0, 1.0], [0.0, 0.5]]


@pytest.mark.parametrize(
    ("name", "dates"),
    [
        ("DATE", ["2-28-2020", "3-1-2020"]),
        ("DATE", ["2/28/20", "3/1/20"]),
        ("DATE", ["2020-02-28", "2020-03-01"]),
        ("DAT1", ["28.2.2020", "1.3.2020"]),
        ("DAT2", ["2020/2/28", "2020/3/1"]),
        ("DAT3", ["2020-28-2", "2020-1-3"]),
        ("DATE", [10, 12]),
    ],
)
def test_dates_in_every_order(name, dates):
    # 2020 is a leap year: two days from 28 February to 1 March.
    assert times(["22:00", "1:00"], **{name: dates}).times.tolist() == [[0.0, 27.0]]
    assert times([22.0, 1.0], **{name: dates}).times.tolist() == [[0.0, 27.0]]


def test_dates_without_a_year_and_of_the_last_century():
    assert times([0.0, 0.0], DATE=["12-30", "12-31"]).times.tolist() == [[0.0, 24.0]]
    assert times([0.0, 0.0], DATE=["12-31-99", "1-1-00"]).times.tolist() == [[0.0, 24.0]]


def test_time_stamps():
    assert times(["2024-03-01 08:00", "2024-03-02T09:30"]).times.tolist() == [[0.0, 25.5]]
    stamps = pd.to_datetime(["2024-03-01 08:00", "2024-03-02 09:30"])
    assert times(stamps).times.tolist() == [[0.0, 25.5]]
    assert times([8.0, 9.5], DATE=pd.to_datetime(["2024-03-01", "2024-03-02"])).times.tolist() == [[0.0, 25.5]]


def test_units_of_time_and_of_intervals():
    doses = dict(AMT=[10.0, 0], EVID=[1, 0], ADDL=[1, 0])
    frame = pd.DataFrame({"ID": 1, "TIME": [0.0, 60.0], "DV": [np.nan, 1.0]} | doses)
    weekly = hx.read_nonmem(frame.assign(II=[1.0, 0]), units={"TIME": "h", "II": "d"})
    assert weekly.events.time.tolist() == [[0.0, 24.0]]
    clock = hx.read_nonmem(frame.assign(II=["12:30", "0"]))
    assert clock.events.time.tolist() == [[0.0, 12.5]]
    minutes = hx.read_nonmem(frame.assign(II=["0:30", "0"]), units={"TIME": "min"})
    assert minutes.events.time.tolist() == [[0.0, 30.0]]
    days = times(["8:00", "20:00"], units={"TIME": "d"})
    assert days.times.tolist() == [[0.0, 0.5]]
