"""Random tables: an error from our list, or a population whose table means the same; never anything else."""

import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hierax as hx

SETTINGS = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True)
NUMBERS = st.one_of(
    st.sampled_from([0, 1, 2, 3, 4, -1, -2, 5, 100, 101, 0.5, np.nan, np.inf, 1e300, -1e-300]),
    st.sampled_from([".", "", "NA", "x", "1", "2.5", " 3 ", "8:00", "2020-01-02", True, None]),
)
TAME = st.sampled_from([0, 1, 2, 3, 0.5, 10.0])
COLUMNS = {
    "ID": st.one_of(st.sampled_from([1, 2, 3, "a", "b"]), NUMBERS),
    "TIME": st.one_of(TAME, st.sampled_from(["8:00", "9:30", -4.0]), NUMBERS),
    "DV": st.one_of(TAME, NUMBERS),
    "AMT": st.one_of(TAME, NUMBERS),
    "EVID": st.one_of(st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4]), NUMBERS),
    "CMT": st.one_of(st.sampled_from([0, 1, 2]), NUMBERS, st.just("depot")),
    "RATE": st.one_of(st.sampled_from([0, 0, 5.0, -1, -2]), NUMBERS),
    "DUR": st.one_of(st.sampled_from([0, 0, 2.0, "0:30"]), NUMBERS),
    "II": st.one_of(st.sampled_from([0, 0, 12.0, "6:00"]), NUMBERS),
    "ADDL": st.one_of(st.sampled_from([0, 0, 1, 3]), NUMBERS),
    "SS": st.one_of(st.sampled_from([0, 0, 1, 2, 3]), NUMBERS),
    "MDV": st.one_of(st.sampled_from([0, 1, 100, 101]), NUMBERS),
    "DVID": st.sampled_from([1, 2, "cp", np.nan]),
    "OCC": st.one_of(st.sampled_from([1, 2]), NUMBERS),
    "CENS": st.one_of(st.sampled_from([0, 0, 1, -1]), NUMBERS),
    "LIMIT": st.one_of(TAME, NUMBERS),
    "DATE": st.one_of(st.sampled_from(["1-2-2020", "1-3-2020", 4]), NUMBERS),
    "WT": st.one_of(TAME, NUMBERS),
    "SEX": st.sampled_from(["F", "M", ".", 1, None]),
}


@st.composite
def wild(draw):
    """Any cells in any columns."""
    names = [
        "ID",
        "TIME",
        "DV",
        *draw(st.lists(st.sampled_from(sorted(set(COLUMNS) - {"ID", "TIME", "DV"})), unique=True)),
    ]
    rows = draw(st.integers(1, 6))
    return pd.DataFrame({name: pd.Series([draw(COLUMNS[name]) for _ in range(rows)], dtype=object) for name in names})


@st.composite
def tame(draw):
    """Records that are mostly right: sorted times, known codes, dose items on doses; a cell may be spoilt."""
    rows = draw(st.integers(2, 8))
    ids = sorted(draw(st.lists(st.integers(1, 3), min_size=rows, max_size=rows)))
    evid = [draw(st.sampled_from([0, 0, 1, 1, 2, 3, 4])) for _ in range(rows)]
    dose = [code in (1, 4) for code in evid]

    def item(strategy, default=0):
        return [draw(strategy) if here else default for here in dose]

    frame = pd.DataFrame({"ID": ids, "EVID": evid})
    frame["TIME"] = np.cumsum([draw(st.sampled_from([0.0, 0.5, 3.0])) for _ in range(rows)])
    frame["DV"] = [np.nan if code else draw(st.sampled_from([1.0, 2.5, 7.0])) for code in evid]
    frame["AMT"] = item(st.sampled_from([10.0, 100.0]))
    frame["RATE"] = item(st.sampled_from([0, 0, 5.0, -1, -2]))
    if draw(st.booleans()):
        frame["DUR"] = item(st.sampled_from([0, 0, 2.0, 2.5]))
        frame["RATE"] = frame["RATE"].where(frame["DUR"] == 0, 0)
    frame["II"] = item(st.sampled_from([6.0, 12.0]))
    frame["ADDL"] = item(st.sampled_from([0, 0, 2]))
    frame["SS"] = item(st.sampled_from([0, 0, 1, 2, 3]))
    frame["CMT"] = item(st.sampled_from([0, 1, 2]))
    frame["OCC"] = [draw(st.sampled_from([1, 2])) for _ in range(rows)]
    frame["CENS"] = [0 if code else draw(st.sampled_from([0, 0, 0, 1, -1])) for code in evid]
    frame["WT"] = frame["ID"] * 10.0
    frame["CR"] = [draw(TAME) for _ in range(rows)]
    frame["SEX"] = frame["ID"].map({1: "F", 2: "M", 3: "F"})
    if draw(st.booleans()):
        name = draw(st.sampled_from(sorted(set(frame.columns) & set(COLUMNS))))
        frame[name] = frame[name].astype(object)
        frame.loc[draw(st.integers(0, rows - 1)), name] = draw(COLUMNS[name])
    return frame


def read_and_write(frame):
    """Read a table; where that succeeds, write it, read it again, and compare."""
    names = [name for name in ("WT", "CR", "SEX") if name in frame.columns]
    options = {"covariates": names, "interpolation": "nocb"}
    try:
        pop = hx.read_nonmem(frame, **options)
    except ValueError as error:
        refusal = error
    else:
        refusal = None
    if refusal is not None:
        # What the table cannot give is asked for by one of our messages; pandas and NumPy have no such words.
        known = isinstance(refusal, hx.DataError) and len(refusal.problems) > 0
        assert known or any(word in str(refusal) for word in ("Give", "Name", "Say", "Keep", "Add")), str(refusal)
        return False
    again = hx.read_nonmem(pop.to_frame(), **options)
    assert jax.tree.structure(pop) == jax.tree.structure(again)
    for one, two in zip(jax.tree.leaves(pop), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, two)
    assert pop.ids == again.ids
    assert pop.labels == again.labels
    assert np.isfinite(np.asarray(pop.times)).all()
    return True


def run(strategy, count):
    """Return how many of ``count`` tables were read."""
    found = []

    @settings(SETTINGS, max_examples=count)
    @given(strategy)
    def check(frame):
        found.append(read_and_write(frame))

    check()
    return sum(found)


@pytest.mark.filterwarnings("ignore::hierax.DataWarning")
def test_some_random_tables():
    # Both ends are reached: tables that are read, and tables that are refused.
    assert 20 < run(tame(), 150) < 150
    run(wild(), 100)


@pytest.mark.parametrize(
    "count", [pytest.param(1000, marks=pytest.mark.slow), pytest.param(5000, marks=pytest.mark.study)]
)
@pytest.mark.filterwarnings("ignore::hierax.DataWarning")
def test_thousands_of_random_tables(count):
    assert run(tame(), count) > count / 5
    run(wild(), count)
