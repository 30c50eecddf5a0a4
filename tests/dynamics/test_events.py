"""Every rule of dosing records, against closed forms derived by hand.

One compartment, k = 0.2, V = 1, unless said: after a bolus D at time s the amount is D exp(-k (t - s)); while an
infusion of rate R runs it is (R/k) (1 - exp(-k (t - s))). All rules are checked by both ways of computing: by
superposition, and from boundary to boundary.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import scipy.stats
from helpers import EXACT
from numpyro.primitives import _PYRO_STACK

import hierax as hx
from hierax.dynamics.linear import closed_form

# Lags beyond II are right by the rule that is tested here; that other programs differ is said in a warning.
pytestmark = pytest.mark.filterwarnings("ignore:lag is longer than II:hierax.HieraxWarning")

K, KA = 0.2, 0.7


def by_ode(pop, *, k, V, ka=None, F=None, lag=None, rate=None, duration=None, Tk0=None):
    """The closed form's work as an ODE, compiled."""

    def field(t, y, p):
        central = -p["k"] * y["central"]
        if "depot" not in y:
            return {"central": central}
        return {"depot": -p["ka"] * y["depot"], "central": central + p["ka"] * y["depot"]}

    if Tk0 is not None:
        pytest.skip("zero-order absorption of a bolus is an option of the closed forms; here it is RATE -2")
    oral = ka is not None
    states = ["depot", "central"] if oral else ["central"]

    def solve(pop, k, ka, F, lag, rate, duration):
        args = {"k": k, "ka": ka} if oral else {"k": k}
        return hx.solve_ode(
            pop,
            field,
            dict.fromkeys(states, 0.0),
            args,
            doses=dict(enumerate(states, start=1)),
            bioavailability=F,
            lag=lag,
            rate=rate,
            duration=duration,
            solver=hx.Grid(rtol=1e-10, floor=1e-6, method="dopri8"),
        )

    compiled = solve if _PYRO_STACK else jax.jit(solve)
    return compiled(pop, k, ka, F, lag, rate, duration)["central"] / V


def closed_forms_only(way):
    if way == "ode":
        pytest.skip("the ODE has a rule and a message of its own: tests/dynamics/test_ode.py")


# An ODE is solved to 1e-10 of the state, and at least to 1e-16 of its peak; amounts are of the order of 100.
TOLERANCE = {"rtol": EXACT, "atol": 1e-13}
ODE_TOLERANCE = {"rtol": 1e-8, "atol": 1e-11}


@pytest.fixture(params=["superposition", "propagation", pytest.param("ode", marks=pytest.mark.slow)], autouse=True)
def way(request, monkeypatch):
    if request.param == "ode":
        monkeypatch.setattr(hx.pk, "one_compartment", by_ode)
        monkeypatch.setitem(TOLERANCE, "rtol", ODE_TOLERANCE["rtol"])
        monkeypatch.setitem(TOLERANCE, "atol", ODE_TOLERANCE["atol"])
        return request.param
    monkeypatch.setattr(closed_form, "SUPERPOSED_DOSES", 10**6 if request.param == "superposition" else -1)
    return request.param


def records(*rows, interpolation=None, **options):
    base = {"AMT": 0.0, "RATE": 0.0, "II": 0.0, "ADDL": 0, "SS": 0, "CMT": 0, "EVID": 0}
    frame = pd.DataFrame(
        [{**base, "DV": np.nan if row.get("EVID", 0) else 1.0 + i, **row} for i, row in enumerate(rows)]
    )
    return hx.read_nonmem(frame.assign(ID=1), interpolation=interpolation, **options)


def dose(time, amount=100.0, evid=1, **items):
    return {"TIME": time, "AMT": amount, "EVID": evid, **items}


def at(*times):
    return [{"TIME": time} for time in times]


def central(pop, **arguments):
    """Return the central amounts at the observations."""
    amount = hx.pk.one_compartment(pop, k=K, V=1.0, **arguments)
    return np.asarray(amount)[0][pop.mask["dv"][0]]


def bolus(t, amount=100.0):
    return amount * np.exp(-K * t)


def oral(t, amount=100.0, ka=KA):
    return amount * ka / (ka - K) * (np.exp(-K * t) - np.exp(-ka * t))


def infused(t, rate, duration):
    """The amount at t after the start of an infusion."""
    run = min(t, duration)
    return rate / K * (1 - np.exp(-K * run)) * np.exp(-K * (t - run))


def check(found, expected):
    np.testing.assert_allclose(found, expected, **TOLERANCE)


# -- EVID (table b.2) --------------------------------------------------------------------------------------------


def test_evid_0_1_2():
    pop = records(dose(0), *at(1.0), {"TIME": 2.0, "EVID": 2}, *at(3.0))
    check(central(pop), [bolus(1), bolus(3)])
    # EVID 2 is a time to predict at, and no data.
    check(np.asarray(hx.pk.one_compartment(pop, k=K, V=1.0))[0], [100, bolus(1), bolus(2), bolus(3)])
    assert pop.mask["dv"].tolist() == [[False, True, False, True]]


def test_evid_3_empties_the_system_cancels_what_is_pending_and_turns_the_clock_back():
    pop = records(
        dose(0, ADDL=5, II=4.0), *at(5.0), {"TIME": 2.0, "EVID": 3}, *at(2.0, 6.0), dose(7, 50.0), *at(8.0, 12.0)
    )
    first = bolus(5) + bolus(1)
    check(central(pop), [first, 0, 0, bolus(1, 50), bolus(5, 50)])


def test_evid_3_ends_an_infusion():
    pop = records(dose(0, RATE=10.0), *at(3.0), {"TIME": 4.0, "EVID": 3}, *at(5.0))
    check(central(pop), [infused(3, 10, 10), 0])


def test_evid_4_resets_and_doses():
    pop = records(dose(0), *at(1.0), dose(1, 30.0, evid=4), *at(1.0, 3.0))
    check(central(pop), [bolus(1), 30, bolus(2, 30)])


def test_evid_4_with_steady_state():
    pop = records(dose(0), *at(2.0), dose(2, 30.0, evid=4, SS=1, II=6.0), *at(2.0, 5.0))
    steady = 30 / (1 - np.exp(-K * 6))
    check(central(pop), [bolus(2), steady, steady * np.exp(-K * 3)])


# -- order at equal time (b.3) -----------------------------------------------------------------------------------


def test_an_observation_sees_the_doses_that_are_listed_before_it():
    pop = records(*at(0.0), dose(0), *at(0.0, 2.0), dose(2, 50.0), *at(2.0))
    check(central(pop), [0, 100, bolus(2), bolus(2) + 50])


def test_an_observation_before_a_steady_state_at_the_same_time_reads_the_state_before():
    pop = records(dose(0), *at(3.0), dose(3, 10.0, SS=1, II=12.0), *at(3.0))
    check(central(pop), [bolus(3), 10 / (1 - np.exp(-K * 12))])


def test_additional_doses_take_the_place_of_their_parent():
    # Listed after the dose record: an observation at the time of an additional dose sees it.
    pop = records(dose(0, ADDL=2, II=4.0), *at(4.0, 8.0))
    check(central(pop), [bolus(4) + 100, bolus(8) + bolus(4) + 100])


# -- steady states (b.4) -----------------------------------------------------------------------------------------


def test_steady_state_of_boluses():
    pop = records(dose(24, SS=1, II=12.0), *at(24.0, 30.0, 40.0))
    steady = 100 / (1 - np.exp(-K * 12))
    # No further dose follows by itself: after the interval the amount goes on falling.
    check(central(pop), [steady, steady * np.exp(-K * 6), steady * np.exp(-K * 16)])


def test_additional_doses_of_a_steady_state_are_plain_doses():
    pop = records(dose(0, SS=1, II=12.0, ADDL=1), *at(13.0))
    check(central(pop), [100 * np.exp(-K) / (1 - np.exp(-K * 12))])


def test_steady_state_replaces_what_is_there_and_2_adds_to_it():
    for code, kept in ((1, 0.0), (3, 0.0), (2, 1.0)):
        pop = records(dose(0, 40.0, RATE=4.0), dose(5, SS=code, II=8.0), *at(6.0, 12.0))
        steady = [100 * np.exp(-K * t) / (1 - np.exp(-K * 8)) for t in (1, 7)]
        check(central(pop), np.array(steady) + kept * np.array([infused(6, 4, 10), infused(12, 4, 10)]))


@pytest.mark.parametrize("duration", [3.0, 8.0, 11.0, 20.0])
def test_steady_state_of_infusions_also_longer_than_the_interval(duration):
    rate, interval = 5.0, 8.0
    pop = records(dose(0, rate * duration, RATE=rate, SS=1, II=interval), *at(0.0, 2.0, 7.0, 25.0))
    past = np.arange(400)
    expected = [sum(infused(t + n * interval, rate, duration) for n in past) for t in (0.0, 2.0, 7.0, 25.0)]
    check(central(pop), expected)


def test_constant_infusion_at_steady_state_ends_at_its_record():
    pop = records(dose(3, 0.0, RATE=7.0, SS=1), *at(3.0, 5.0))
    check(central(pop), [7 / K, 7 / K * np.exp(-K * 2)])
    # Into a depot: the plateau of the central amount is the same, and the depot empties into it afterwards.
    pop = records(dose(3, 0.0, RATE=7.0, SS=1, CMT=1), *at(3.0, 5.0))
    check(central(pop, ka=KA), [7 / K, 7 / K * np.exp(-K * 2) + oral(2, 7 / KA)])


def test_steady_state_of_oral_doses():
    pop = records(dose(0, SS=1, II=8.0), *at(0.0, 3.0))
    expected = [sum(oral(t + 8.0 * n) for n in range(400)) for t in (0.0, 3.0)]
    check(central(pop, ka=KA), expected)


@pytest.mark.parametrize("lag", [0.5, 8.0, 11.0, 17.5])
def test_steady_state_with_a_lag_is_a_regimen_that_has_always_run(lag):
    # Doses at 0, -8, -16, ... arrive a lag late; those that have not arrived at 0 still do, also if lag > II.
    pop = records(dose(0, SS=1, II=8.0), *at(0.0, 0.25, 3.0, 9.0, 20.0))
    times = np.array([0.0, 0.25, 3.0, 9.0, 20.0])
    arrivals = lag - 8.0 * np.arange(400)
    expected = [sum(bolus(t - arrivals[arrivals <= t])) for t in times]
    check(central(pop, lag=lag), expected)


def test_a_later_steady_state_cancels_lagged_doses_and_running_infusions():
    pop = records(dose(0), dose(0, 50.0, RATE=5.0), dose(1, 20.0, SS=1, II=6.0), *at(1.5, 4.0))
    arrivals = 1 + 2.0 - 6.0 * np.arange(400)
    check(central(pop, lag=2.0), [sum(bolus(t - arrivals[arrivals <= t], 20)) for t in (1.5, 4.0)])


# -- bioavailability, lag, rate, duration (b.5) ------------------------------------------------------------------


def test_bioavailability_changes_the_duration_where_the_rate_is_known():
    pop = records(dose(0, RATE=10.0), *at(3.0, 7.0))
    check(central(pop, F=0.5), [infused(3, 10, 5), infused(7, 10, 5)])
    pop = records(dose(0, RATE=-1), *at(3.0, 7.0))
    check(central(pop, F=0.5, rate=10.0), [infused(3, 10, 5), infused(7, 10, 5)])


def test_bioavailability_changes_the_rate_where_the_duration_is_known():
    pop = records(dose(0, RATE=-2), *at(3.0, 7.0))
    check(central(pop, F=0.5, duration=4.0), [infused(3, 12.5, 4), infused(7, 12.5, 4)])


def test_zero_order_absorption():
    pop = records(dose(0), *at(3.0), dose(6, 40.0), *at(7.0))
    check(central(pop, Tk0=4.0), [infused(3, 25, 4), infused(7, 25, 4) + infused(1, 10, 4)])


def test_lag_holds_for_additional_doses_too():
    pop = records(dose(0, ADDL=2, II=5.0), *at(1.0, 4.0, 13.0))
    check(central(pop, lag=1.5), [0, bolus(2.5), bolus(11.5) + bolus(6.5) + bolus(1.5)])


def test_dose_parameters_are_those_of_the_dose_record():
    pop = records(dose(0), *at(2.0), dose(4), *at(6.0))
    values = dict(F=jnp.array([[0.5, 9.0, 2.0, 9.0]]), lag=jnp.array([[1.0, 9.0, 0.25, 9.0]]))
    check(central(pop, **values), [bolus(1, 50), bolus(5, 50) + bolus(1.75, 200)])


def test_dose_parameters_by_compartment_by_number_and_by_name():
    rows = (dose(0, CMT="gut"), dose(0, 60.0, CMT="blood"), *at(2.0, 5.0))
    pop = records(*rows, compartments={"gut": 1, "blood": 2})
    expected = [oral(t, 40) + bolus(t - 0.5, 60) for t in (2.0, 5.0)]
    check(central(pop, ka=KA, F={"gut": 0.4}, lag={"blood": 0.5}), expected)
    check(central(pop, ka=KA, F={1: 0.4}, lag={2: 0.5}), expected)
    with pytest.raises(
        ValueError, match=r"F names (the compartment 'liver', but .*'gut': 1|'liver', which is neither a dosed)"
    ):
        central(pop, ka=KA, F={"liver": 0.4})


def test_modelled_rates_and_durations_must_be_given():
    with pytest.raises(ValueError, match=r"Some doses have RATE -2, so their duration is a parameter"):
        central(records(dose(0, RATE=-2), *at(1.0)))
    # One program serves several regimens: a rate that no dose asks for does nothing.
    check(central(records(dose(0), *at(1.0)), rate=3.0), [bolus(1)])
    pop = records(dose(0, CMT=2, RATE=-2), *at(1.0))
    with pytest.raises(ValueError, match=r"Doses into CMT \[2\] have RATE -2, and duration= gives none"):
        central(pop, ka=KA, duration={1: 4.0})
    check(central(pop, ka=KA, duration={np.int64(2): 4.0}), [infused(1, 25, 4)])


@pytest.mark.parametrize(
    ("record", "name"),
    [({}, "F"), ({}, "lag"), ({"RATE": -2}, "duration"), ({"RATE": -1}, "rate"), ({}, "Tk0"), ({"RATE": 25}, "F")],
)
@pytest.mark.parametrize("model", ["closed form", "ode"])
def test_dose_parameters_below_zero_are_no_doses(way, record, name, model):
    """Known values are refused by name; computed ones make every later prediction NaN (an ODE's every one)."""
    # Both kinds of models are parameters of this test; what stands in for closed forms elsewhere is compiled.
    closed_forms_only(way)
    if name == "Tk0" and model == "ode":
        pytest.skip("solve_ode has no Tk0")
    pop = records(*at(0.0), dose(1, **record), *at(2.0, 3.0))

    def predict(value):
        if model == "closed form":
            return hx.pk.one_compartment(pop, k=K, V=1.0, **{name: value})[0]
        field = lambda t, y, p: {"central": -K * y["central"]}  # noqa: E731
        long = "bioavailability" if name == "F" else name
        return hx.solve_ode(pop, field, {"central": 0.0}, {}, doses={1: "central"}, **{long: value})["central"][0]

    with pytest.raises(ValueError, match=rf"{name} is -0.5 at a dose \(row 0, dose 0 of the population\)"):
        predict(-0.5)
    found = np.asarray(jax.jit(predict)(-0.5))
    assert found[0] == 0.0 or model == "ode"
    assert np.isnan(found[2:]).all()
    assert np.isfinite(np.asarray(jax.jit(predict)(0.5))).all()


def test_a_part_without_modelled_doses_does_not_ask_for_them():
    whole = pd.concat(
        [records(dose(0, RATE=-2), *at(1.0)).to_frame(), records(dose(0), *at(1.0)).to_frame().assign(ID=2)]
    )
    pop = hx.read_nonmem(whole)
    with pytest.raises(ValueError, match=r"Some doses have RATE -2"):
        central(pop)
    check(central(pop[[1]]), [bolus(1)])
    # A resampled population has the structure of the whole, whoever is drawn: its compiled functions serve.
    kept = pop[[1, 1]].events.structured_as(pop.events)
    assert jax.tree.structure(kept) == jax.tree.structure(pop.events) != jax.tree.structure(pop[[1, 1]].events)
    check(central(pop[[1]], duration=4.0), [bolus(1)])
    check(central(pop[[0]], duration=4.0), [infused(1, 25, 4)])
    with pytest.raises(ValueError, match=r"Some doses have RATE -2"):
        central(pop[[0]])


def test_parameters_of_doses_that_are_not_there_do_nothing():
    """One program serves several regimens: what a regimen does not need is ignored, and hx.check says so."""
    pop = records(dose(0), *at(1.0, 3.0))
    bare = central(pop)
    for unused in ({"rate": 3.0}, {"duration": 2.0}, {"lag": {2: 1.0}}, {"F": {2: 0.5}}, {"rate": {1: 3.0}}):
        check(central(pop, **unused), bare)


def test_a_part_of_the_subjects_needs_the_parameters_of_its_own_doses():
    """The first subject has a bolus, the second a dose with RATE -2."""
    rows = [dict(ID=i, TIME=0.0, AMT=100.0, EVID=1, RATE=rate, DV=np.nan) for i, rate in ((1, 0), (2, -2))]
    rows += [dict(ID=i, TIME=3.0, AMT=0.0, EVID=0, RATE=0, DV=1.0) for i in (1, 2)]
    pop = hx.read_nonmem(pd.DataFrame(rows).sort_values(["ID", "TIME"]))
    check(central(pop[[0]]), [bolus(3)])
    check(central(pop[[1]], duration=2.0), [infused(3, 50, 2)])
    for part in (pop, pop[[1]], pop[[0, 1]]):
        with pytest.raises(ValueError, match="Some doses have RATE -2"):
            central(part)


def test_no_bioavailability_and_no_duration():
    """F = 0 is no dose, with the derivative of a dose; a duration of 0 is a bolus."""
    pop = records(dose(0, RATE=-2), *at(2.0))

    def amount(F, duration=4.0):
        return hx.pk.one_compartment(pop, k=K, V=1.0, F=F, duration=duration)[0, 1]

    check(float(amount(0.0)), 0.0)
    check(float(jax.jacfwd(amount)(0.0)), infused(2, 25, 4))
    np.testing.assert_allclose(float(amount(1.0, 0.0)), bolus(2), rtol=1e-9)
    assert np.isfinite(jax.jacfwd(lambda d: amount(1.0, d))(0.0))


def test_a_dose_parameter_by_record_where_there_are_as_many_records_as_subjects():
    frame = pd.DataFrame({"ID": [1, 1, 2, 2], "TIME": [0.0, 2] * 2, "DV": [np.nan, 1] * 2, "AMT": [100.0, 0] * 2})
    pop = hx.read_nonmem(frame)
    found = hx.pk.one_compartment(pop, k=K, V=1.0, F=jnp.array([[0.5, 9.0], [0.8, 9.0]]))
    check(np.asarray(found)[:, 1], [bolus(2, 50), bolus(2, 80)])
    with pytest.raises(ValueError, match=r"comes from (broadcasting|\(subject, 1\) meeting)"):
        hx.pk.one_compartment(pop, k=jnp.full((2, 2), K), V=1.0)


# -- covariates between records (b.6) ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "pieces"),
    [
        # Interval (0, 4]: with nocb the value of the record at 4, with locf that of the record at 0, ...
        ("nocb", [(4, 0.5), (6, 0.1)]),
        ("locf", [(4, 0.2), (6, 0.5)]),
        ("midpoint", [(2, 0.2), (2, 0.5), (3, 0.5), (3, 0.1)]),
    ],
)
def test_a_parameter_between_records(rule, pieces):
    pop = records(dose(0), *at(4.0, 10.0), interpolation=rule)
    k = jnp.array([[0.2, 0.5, 0.1]])
    found = np.asarray(hx.pk.one_compartment(pop, k=k, V=1.0))[0, -1]
    check(found, 100 * np.exp(-sum(length * value for length, value in pieces)))


def test_a_parameter_that_changes_while_an_infusion_runs():
    pop = records(dose(0, RATE=10.0), *at(4.0, 14.0), interpolation="nocb")
    k = jnp.array([[0.3, 0.3, 0.1]])
    found = np.asarray(hx.pk.one_compartment(pop, k=k, V=1.0))[0]
    first = 10 / 0.3 * (1 - np.exp(-1.2))
    # The infusion ends at 10, between the records.
    second = (first * np.exp(-0.6) + 10 / 0.1 * (1 - np.exp(-0.6))) * np.exp(-0.4)
    check(found, [0, first, second])


def test_straight_lines_are_refused(way):
    closed_forms_only(way)
    pop = records(dose(0), *at(4.0), interpolation="linear")
    with pytest.raises(ValueError, match=r"k changes along straight lines.*hx.solve_ode"):
        hx.pk.one_compartment(pop, k=jnp.array([[0.2, 0.5]]), V=1.0)


# -- the rest of the conformance cases (b.7) ---------------------------------------------------------------------


def test_cmt_0_is_the_default_compartment():
    check(central(records(dose(0, CMT=0), *at(2.0)), ka=KA), [oral(2)])
    check(central(records(dose(0, CMT=0), *at(2.0))), [bolus(2)])


def test_time_may_start_anywhere_and_be_negative():
    for start in (-5.0, 100.0):
        pop = records(*at(start), dose(start + 1), *at(start + 3))
        check(central(pop), [0, bolus(2)])


def test_the_end_of_an_infusion_at_an_observation():
    pop = records(dose(0, RATE=25.0), *at(4.0))

    def amount(rate):
        modelled = records(dose(0, RATE=-1), *at(4.0))
        return hx.pk.one_compartment(modelled, k=K, V=1.0, rate=rate)[0, 1]

    check(central(pop), [infused(4, 25, 4)])
    # At the tie the derivative is the one-sided one of an infusion that has ended: its duration is AMT/rate.
    check(float(jax.grad(amount)(25.0)), (1 - np.exp(-K * 4)) / K - 100 / 25)


def test_derivative_with_respect_to_lag():
    pop = records(dose(0), *at(3.0))
    # d/dlag of D exp(-k (t - lag)) is k times it.
    slope = jax.grad(lambda lag: hx.pk.one_compartment(pop, k=K, V=1.0, lag=lag)[0, 1])(0.5)
    check(float(slope), K * bolus(2.5))


def test_missing_dv_is_predicted_and_no_data():
    pop = records(dose(0), {"TIME": 1.0, "MDV": 1}, {"TIME": 2.0, "MDV": 0}, {"TIME": 3.0, "MDV": 100})
    assert pop.mask["dv"].tolist() == [[False, False, True, False]]
    check(np.asarray(hx.pk.one_compartment(pop, k=K, V=1.0))[0, 1:], [bolus(1), bolus(2), bolus(3)])


def test_a_subject_without_doses_is_zero_and_one_without_observations_is_predicted():
    frame = pd.DataFrame(
        {
            "ID": [1, 1, 2, 3, 3],
            "TIME": [0.0, 2, 0, 0, 2],
            "AMT": [100.0, 0, 100, 0, 0],
            "DV": [np.nan, 1, np.nan, 0, 0],
        }
    )
    with pytest.warns(hx.DataWarning, match="has no observation"):
        pop = hx.read_nonmem(frame.assign(EVID=[1, 0, 1, 0, 0]))
    amount = np.asarray(hx.pk.one_compartment(pop, k=K, V=1.0))
    check(amount[:, -1], [bolus(2), 100, 0])


def test_doses_into_compartments_that_are_not_there_are_refused(way):
    closed_forms_only(way)
    pop = records(dose(0, CMT=2), *at(1.0))
    with pytest.raises(ValueError, match=r"Doses go into CMT \[2\], but this one_compartment has .*1: 'central'"):
        central(pop)
    check(central(pop, ka=KA), [bolus(1)])


def test_a_population_without_any_dose():
    frame = pd.DataFrame({"ID": 1, "TIME": [0.0, 1.0], "DV": 1.0})
    check(np.asarray(hx.pk.one_compartment(hx.read_nonmem(frame), k=K, V=1.0)), 0.0)


def test_padding_changes_nothing():
    pop = records(dose(0, RATE=10.0, SS=1, II=6.0), *at(1.0), dose(3, ADDL=3, II=2.0), *at(6.5))
    padded = pop.pad(n_subjects=3, n_records=9, n_doses=11)
    two = dict(k=K, k12=0.3, k21=0.1, V1=1.0, ka=KA, lag=0.3)
    check(
        np.asarray(hx.pk.two_compartment(padded, **two))[0, : pop.n_records],
        np.asarray(hx.pk.two_compartment(pop, **two))[0],
    )


def test_a_subject_with_nothing_above_the_limit_of_quantification():
    """Its likelihood is the probability of that, by quadrature over its random effect; the others' stay as they are."""

    def model(pop):
        positive = dist.constraints.positive
        k = numpyro.param("k", 0.3, constraint=positive)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 0.4))
            amount = hx.pk.one_compartment(pop, k=k * jnp.exp(eta), V=1.0)
            hx.observe("dv", dist.Normal(amount, 0.5), pop)

    base = pd.DataFrame({"TIME": [0.0, 4, 9], "AMT": [9.0, 0, 0], "EVID": [1, 0, 0], "CENS": [0, 0, 0]})
    seen, below = base.assign(ID=1, DV=[np.nan, 2.5, 0.7]), base.assign(ID=2, DV=[np.nan, 4, 4], CENS=[0, 1, 1])
    unseen = base.assign(ID=3, DV=np.nan, EVID=[1, 2, 2])
    with pytest.warns(hx.DataWarning, match="ID 3.*the subject has no observation"):
        pop = hx.read_nonmem(pd.concat([seen, below, unseen]))
    found = hx.evaluate(model, pop, {}, hx.AGQ(25, "full")).subject_objective
    grid = np.linspace(-4, 4, 20001)
    rate = 0.3 * np.exp(grid)
    censored = scipy.stats.norm.cdf((4 - 9 * np.exp(-rate * 4)) / 0.5) * scipy.stats.norm.cdf(
        (4 - 9 * np.exp(-rate * 9)) / 0.5
    )
    likelihood = np.trapezoid(censored * scipy.stats.norm.pdf(grid, scale=0.4), grid)
    assert found[2] == pytest.approx(-2 * np.log(likelihood), abs=1e-6)
    # A subject that observes nothing counts for nothing.
    assert found[3] == pytest.approx(0.0, abs=1e-12)
    alone = hx.evaluate(model, hx.read_nonmem(seen), {}, hx.AGQ(25, "full")).subject_objective
    assert found[1] == pytest.approx(alone[1], abs=1e-10)
