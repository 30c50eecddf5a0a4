"""Durations of infusions, and the codes of classic RxODE, against 100/5 h of CL 3 and V 20 in closed form."""

import numpy as np
import pandas as pd
import pytest

import hierax as hx

CL, V, HOURS, TIMES = 3.0, 20.0, 5.0, np.array([1.0, 5.0, 8.0])
K = CL / V
# While it runs and after: R/CL (1 - exp(-k t)), then falling; 0.929, 3.518, 2.243.
EXPECTED = 20 / CL * (1 - np.exp(-K * np.minimum(TIMES, HOURS))) * np.exp(-K * np.maximum(TIMES - HOURS, 0))


def concentrations(pop):
    conc = np.asarray(hx.pk.one_compartment(pop, CL=CL, V=V))[0]
    return conc[pop.mask["dv"][0]]


@pytest.mark.parametrize("name", ["DUR", "dur", "Duration", "DURATION", "TINF", "tinf"])
def test_durations_are_read_under_each_of_their_names(infusion_times, name):
    np.testing.assert_allclose(EXPECTED, [0.929, 3.518, 2.243], atol=5e-4)
    found = concentrations(hx.read_nonmem(infusion_times(**{name: [5.0, 0, 0, 0]})))
    np.testing.assert_allclose(found, EXPECTED, rtol=1e-12)


@pytest.mark.parametrize(
    ("columns", "options"),
    [
        ({"T_INF": [5.0, 0, 0, 0]}, {"columns": {"DUR": "T_INF"}}),
        ({"DUR": [300.0, 0, 0, 0]}, {"units": {"TIME": "h", "DUR": "min"}}),
        ({"DUR": ["5:00", ".", ".", "."]}, {}),
        ({"DUR": ["5", ".", ".", "."], "RATE": [".", ".", ".", "."]}, {}),
        ({"DUR": [5.0, 0, 0, 0], "RATE": [20.0, 0, 0, 0]}, {}),
        ({"DUR": [5.0, 0, 0, 0], "RATE": [0.0, 0, 0, 0]}, {}),
    ],
)
def test_durations_in_other_units_and_beside_rates(infusion_times, columns, options):
    np.testing.assert_allclose(
        concentrations(hx.read_nonmem(infusion_times(**columns), **options)), EXPECTED, rtol=1e-12
    )


@pytest.mark.parametrize(
    ("columns", "code", "text"),
    [
        ({"DUR": [5.0, 0, 0, 0], "RATE": [50.0, 0, 0, 0]}, "dur_rate", "RATE times DUR is not AMT"),
        ({"DUR": [5.0, 0, 0, 0], "RATE": [-2, 0, 0, 0]}, "dur_modelled", "makes rate or duration a parameter"),
        ({"DUR": [-5.0, 0, 0, 0]}, "dur_negative", "value -5: an infusion cannot last less than 0"),
        (
            {"DUR": [5.0, 0, 0, 0], "AMT": 0.0, "EVID": [1, 0, 0, 0]},
            "dur_without_amt",
            "an infusion over this time has no amount",
        ),
        ({"DUR": [1e-308, 0, 0, 0]}, "dur_short", "AMT/DUR is too large"),
        ({"DUR": ["five", 0, 0, 0]}, "not_a_number", "value 'five': DUR must be a finite number"),
    ],
)
def test_durations_that_say_something_else(infusion_times, columns, code, text):
    with pytest.raises(hx.DataError, match=text) as caught:
        hx.read_nonmem(infusion_times(**columns))
    assert code in set(caught.value.problems["code"])


def test_rates_rounded_to_three_digits_agree_with_their_duration(infusion_times):
    pop = hx.read_nonmem(infusion_times(DUR=[3.0, 0, 0, 0], RATE=[33.3, 0, 0, 0]))
    assert pop.events.rate.tolist() == [[33.3]]


def test_a_duration_on_other_records_is_odd_and_as_a_covariate_is_none(infusion_times):
    with pytest.warns(hx.DataWarning, match="a duration on a record that is not a dose has no effect"):
        assert hx.read_nonmem(infusion_times(DUR=5.0)).events.rate.tolist() == [[20.0]]
    pop = hx.read_nonmem(infusion_times(DUR=5.0), covariates=["DUR"])
    assert pop.events.rate.tolist() == [[0.0]]
    assert pop.covariates["DUR"].tolist() == [[5.0]]


def test_classic_rxode_codes_are_named_and_translated_on_request(infusion_times):
    many = pd.concat([infusion_times(ID=i, EVID=[101, 0, 0, 0]) for i in range(120)])
    with pytest.raises(
        hx.DataError, match=r"120 rows of 120 subjects \(first: row 2.*classic RxODE.*evid='rxode'"
    ) as no:
        hx.read_nonmem(many)
    assert len(str(no.value).splitlines()) == 3
    pop = hx.read_nonmem(many.iloc[:4], evid="rxode")
    np.testing.assert_allclose(concentrations(pop), 5 * np.exp(-K * TIMES), rtol=1e-12)
    second = hx.read_nonmem(infusion_times(EVID=[201, 0, 0, 0], CMT=[1, 2, 2, 2]), evid="rxode")
    assert second.events.compartment.tolist() == [[2]]
    steady = hx.read_nonmem(infusion_times(EVID=[110, 0, 0, 0], II=[12, 0, 0, 0]), evid="rxode")
    assert steady.events.steady.tolist() == [[1]]


CLASSIC = pd.DataFrame(
    {
        "ID": 1,
        "TIME": [0.0, 1, 5, 5, 8],
        "DV": [np.nan, 1, np.nan, 2, 3],
        "AMT": [20.0, 0, -20, 0, 0],
        "EVID": [10101, 0, 10101, 0, 0],
    }
)


def test_classic_infusions_have_their_amount_from_the_record_that_ends_them():
    np.testing.assert_allclose(concentrations(hx.read_nonmem(CLASSIC, evid="rxode")), EXPECTED, rtol=1e-12)
    steady = CLASSIC.iloc[[0, 1]].assign(EVID=[10140, 0])
    pop = hx.read_nonmem(steady, evid="rxode")
    assert (pop.events.amount.tolist(), pop.events.rate.tolist()) == ([[0.0]], [[20.0]])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda f: f.drop(index=2), "starts or ends an infusion whose other record is missing"),
        (lambda f: f.drop(index=0), "starts or ends an infusion whose other record is missing"),
        (lambda f: f.assign(ADDL=[1, 0, 0, 0, 0], II=[24.0, 0, 0, 0, 0]), "ADDL or II is not that of the record"),
        (lambda f: f.assign(EVID=[40101, 0, 0, 0, 0], AMT=[20.0, 0, 0, 0, 0]), "this is replacing an amount"),
        (lambda f: f.assign(EVID=[133, 0, 0, 0, 0], AMT=[20.0, 0, 0, 0, 0]), "not a code of a dose or an infusion"),
    ],
)
def test_classic_codes_that_are_not_read(change, text):
    with pytest.raises(hx.DataError, match=text):
        hx.read_nonmem(change(CLASSIC), evid="rxode")


def test_a_clock_that_starts_anew_is_grouped_and_read_on_request(infusion_times):
    periods = pd.concat([infusion_times(ID=i, OCC=occasion) for i in range(60) for occasion in (1, 2)])
    with pytest.raises(hx.DataError, match=r"60 rows of 60 subjects.*read_nonmem\(restarts='OCC'\)") as caught:
        hx.read_nonmem(periods)
    assert len(str(caught.value).splitlines()) == 3
    pop = hx.read_nonmem(periods, restarts="occ")
    assert pop.records["evid"][0].tolist() == [1, 0, 0, 0, 4, 0, 0, 0]
    # The second period is the first one again: nothing is left.
    np.testing.assert_allclose(concentrations(pop), np.tile(5 * np.exp(-K * TIMES), 2), rtol=1e-12)
    again = hx.read_nonmem(pop.to_frame())
    np.testing.assert_array_equal(pop.records["evid"], again.records["evid"])


def test_a_period_that_begins_with_a_sample_gets_a_reset_in_front(infusion_times):
    first, second = infusion_times(P="a"), infusion_times(P="b", TIME=[0.5, 1, 5, 8], EVID=[1, 0, 0, 0])
    sample = pd.DataFrame({"ID": [1], "TIME": [0.2], "DV": [0.1], "AMT": [0.0], "P": ["b"], "EVID": [0]})
    pop = hx.read_nonmem(pd.concat([first, sample, second]), restarts="P")
    assert pop.records["evid"][0].tolist() == [1, 0, 0, 0, 3, 0, 1, 0, 0, 0]
    assert pop.mask["dv"][0].tolist() == [False, True, True, True, False, True, False, True, True, True]
    expected = np.r_[5 * np.exp(-K * TIMES), 0.0, 5 * np.exp(-K * (TIMES - 0.5))]
    np.testing.assert_allclose(concentrations(pop), expected, rtol=1e-12)
    with pytest.raises(ValueError, match=r"restarts= names 'PERIOD', which is no column"):
        hx.read_nonmem(first, restarts="PERIOD")
    with pytest.raises(
        hx.DataError, match="set EVID=3 or 4 on the row if the system was reset there; .* name it in restarts="
    ):
        hx.read_nonmem(infusion_times(TIME=[0.0, 5, 1, 8]))
