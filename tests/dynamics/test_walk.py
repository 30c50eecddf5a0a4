"""Random dosing histories, against an independent walk through the records by matrix exponentials."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import GRADIENT, central_difference
from linear_reference import matrix, walk
from scipy.integrate import solve_ivp

import hierax as hx
from hierax.dynamics.linear import closed_form

# Lags beyond II are right by the rule that is tested here; that other programs differ is said in a warning.
pytestmark = pytest.mark.filterwarnings("ignore:lag is longer than II:hierax.HieraxWarning")

MODELS = {1: hx.pk.one_compartment, 2: hx.pk.two_compartment, 3: hx.pk.three_compartment}
K, EXCHANGE = 0.2, ((0.5, 0.3), (0.1, 0.04))
# The walk sums 400 doses of a steady state by matrix exponentials: 1e-11 of the largest amount.
WALK = 1e-10


def history(rng, steady, infusions, compartments, resets):
    """Return random records: boluses and infusions, repeated, at steady state, resets, ties."""
    out, time = [], float(rng.choice([-3.0, 0.0, 10.0]))
    for _ in range(rng.integers(6, 14)):
        if rng.random() < 0.45:
            out.append({"EVID": 0, "TIME": time})
        else:
            out.append({"EVID": 1, "TIME": time, **dose(rng, steady, infusions, compartments)})
            if resets and rng.random() < 0.2:
                out[-1]["EVID"] = 4
        if resets and rng.random() < 0.1:
            time -= 1
            out.append({"EVID": 3, "TIME": time})
        time += float(rng.choice([0.0, 0.5, 1.0, 3.0, 6.25]))
    return [*out, {"EVID": 0, "TIME": time + 1.0}]


def dose(rng, steady, infusions, compartments):
    items = {"AMT": float(rng.integers(1, 9) * 10), "CMT": int(rng.integers(1, compartments + 1))}
    if infusions and rng.random() < 0.5:
        items["RATE"] = float(rng.choice([3.0, 10.0, 25.0]))
    if rng.random() < 0.3:
        items |= {"ADDL": int(rng.integers(1, 4)), "II": float(rng.choice([2.0, 5.0]))}
    if steady and rng.random() < 0.4:
        items |= {"SS": int(rng.choice([1, 2])), "II": float(rng.choice([4.0, 7.0]))}
        if infusions and rng.random() < 0.3 and items["SS"] == 1:
            items |= {"AMT": 0.0, "RATE": 5.0, "II": 0.0, "ADDL": 0}
    return items


def population(records, interpolation=None):
    base = {"AMT": 0.0, "RATE": 0.0, "II": 0.0, "ADDL": 0, "SS": 0, "CMT": 0}
    rows = [{**base, "DV": np.nan if r["EVID"] else 1.0 + i, **r} for i, r in enumerate(records)]
    with pytest.MonkeyPatch.context() as patch:
        # Random tables have oddities that are not what is tested here.
        patch.setattr("hierax.data.reading.read.note_oddities", lambda *_: None)
        return hx.read_nonmem(pd.DataFrame(rows).assign(ID=1), interpolation=interpolation)


def amounts(pop, n, ka, k=K, **options):
    """Return the amounts of all compartments, (record, state)."""
    arguments = {"k": k, ("V" if n == 1 else "V1"): 1.0}
    for (out, back), names in zip(EXCHANGE[: n - 1], (("k12", "k21"), ("k13", "k31")), strict=False):
        arguments |= dict(zip(names, (out, back), strict=True))
    if ka is not None:
        arguments["ka"] = ka

    def run(pop, arguments):
        return jnp.stack([value[0] for value in MODELS[n](pop, output="amounts", **arguments).values()], -1)

    # Compiled: a history has a structure of its own, and single operations would compile one by one.
    return jax.jit(run)(pop, arguments | {name: value for name, value in options.items() if value is not None})


def case(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 4))
    ka = None if rng.random() < 0.4 else float(rng.choice([1.1, 0.2]))
    steady, infusions, resets = (bool(flag) for flag in rng.random(3) < 0.5)
    records = history(rng, steady, infusions, n + (ka is not None), resets)
    # A lag of 5.3 is longer than the shorter interval of steady states.
    return rng, n, ka, records, float(rng.choice([0.0, 0.7, 5.3])), float(rng.choice([1.0, 0.6]))


def compare(found, expected):
    np.testing.assert_allclose(found, expected, rtol=WALK, atol=WALK * np.abs(expected).max())


def by_superposition_and_propagation(monkeypatch, seed):
    _, n, ka, records, lag, F = case(seed)
    pop = population(records)
    expected = walk(records, matrix(K, EXCHANGE[: n - 1], ka), [{"F": F, "lag": lag}] * len(records))
    found = []
    for doses in (10**6, -1):
        monkeypatch.setattr(closed_form, "SUPERPOSED_DOSES", doses)
        found.append(np.asarray(amounts(pop, n, ka, F=F, lag=lag or None)))
        compare(found[-1], expected)
    # The two ways share no step of their computation after the modes.
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12, atol=1e-12 * np.abs(expected).max())


def changing_parameters(seed):
    rule = ("nocb", "locf", "midpoint")[seed % 3]
    rng, n, ka, records, lag, F = case(1000 + seed)
    scale = rng.uniform(0.5, 2, len(records))
    systems = [matrix(K * factor, EXCHANGE[: n - 1], ka) for factor in scale]
    expected = walk(records, systems, [{"F": F, "lag": lag}] * len(records), governing=rule)
    pop = population(records, rule)
    compare(np.asarray(amounts(pop, n, ka, k=K * scale[None], F=F, lag=lag or None)), expected)


@pytest.mark.parametrize("seed", range(8))
def test_constant_parameters(monkeypatch, seed):
    by_superposition_and_propagation(monkeypatch, seed)


@pytest.mark.parametrize("seed", range(6))
def test_changing_parameters(seed):
    changing_parameters(seed)


@pytest.mark.slow
def test_many_more_histories(monkeypatch):
    for seed in range(6, 60):
        by_superposition_and_propagation(monkeypatch, seed)
        changing_parameters(seed)


@pytest.mark.slow
def test_the_same_parameter_at_every_record_is_a_constant_one():
    for seed in range(3):
        _, n, ka, records, lag, F = case(seed)
        one = amounts(population(records), n, ka, F=F, lag=lag or None)
        pop = population(records, "nocb")
        other = amounts(pop, n, ka, k=jnp.full(pop.times.shape, K), F=F, lag=lag or None)
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12 * float(jnp.abs(one).max()))


def test_changing_parameters_against_an_ode_solver():
    # Two compartments, ka; clearance changes between records, while an infusion into the centre runs.
    records = [
        {"EVID": 1, "TIME": 0.0, "AMT": 100.0, "CMT": 1},
        {"EVID": 1, "TIME": 1.0, "AMT": 60.0, "CMT": 2, "RATE": 10.0},
        {"EVID": 0, "TIME": 3.0},
        {"EVID": 0, "TIME": 9.0},
        {"EVID": 0, "TIME": 20.0},
    ]
    k = np.array([0.2, 0.4, 0.1, 0.6, 0.3])
    (k12, k21), ka = EXCHANGE[0], 1.1
    state, expected = np.array([100.0, 0.0, 0.0]), []
    for left, right, rate, value in [(0, 1, 0, 0.4), (1, 3, 10, 0.1), (3, 7, 10, 0.6), (7, 9, 0, 0.6), (9, 20, 0, 0.3)]:

        def field(_, y, value=value, rate=rate):
            return [-ka * y[0], ka * y[0] - (value + k12) * y[1] + k21 * y[2] + rate, k12 * y[1] - k21 * y[2]]

        state = solve_ivp(field, (left, right), state, method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
        if right in (3, 9, 20):
            expected.append(state)
    found = amounts(population(records, "nocb"), 2, ka, k=k[None])[2:]
    # The solver's own tolerance is absolute for the depot, which has fallen to 1e-8.
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12)


# -- derivatives through events ----------------------------------------------------------------------------------

EVENTS = [
    {"EVID": 1, "TIME": 0.0, "AMT": 100.0, "CMT": 1},
    {"EVID": 0, "TIME": 1.3},
    {"EVID": 1, "TIME": 2.0, "AMT": 50.0, "CMT": 2, "RATE": -1},
    {"EVID": 0, "TIME": 4.1},
    {"EVID": 1, "TIME": 5.0, "AMT": 70.0, "CMT": 2, "RATE": -2, "ADDL": 1, "II": 9.0},
    {"EVID": 0, "TIME": 7.7},
    {"EVID": 1, "TIME": 20.0, "AMT": 30.0, "CMT": 1, "SS": 1, "II": 6.0},
    {"EVID": 1, "TIME": 20.0, "AMT": 40.0, "CMT": 2, "RATE": 5.0, "SS": 2, "II": 6.0},
    {"EVID": 0, "TIME": 20.2},
    {"EVID": 0, "TIME": 23.0},
    {"EVID": 0, "TIME": 31.0},
]
# lag, F, rate, duration, k, ka, k12: no two boundaries coincide at this point.
POINT = np.array([0.45, 0.8, 9.0, 3.5, 0.2, 0.9, 0.5])


def total(pop, changing):
    """Return a function of the dose parameters that weighs all amounts."""

    def value(theta):
        lag, F, rate, duration, k, ka, k12 = theta
        k = k * jnp.linspace(0.7, 1.4, pop.n_records)[None] if changing else k
        out = hx.pk.two_compartment(
            pop, k=k, k12=k12, k21=0.3, V1=1.0, ka=ka, F=F, lag=lag, rate=rate, duration=duration, output="amounts"
        )
        return sum(((index + 1) * jnp.log1p(amount)).sum() for index, amount in enumerate(out.values()))

    return jax.jit(value)


@pytest.mark.parametrize(
    "way",
    [
        pytest.param("superposition", marks=pytest.mark.slow),
        "propagation",
        pytest.param("changing parameters", marks=pytest.mark.slow),
    ],
)
def test_gradients_and_hessians_through_events(monkeypatch, way):
    monkeypatch.setattr(closed_form, "SUPERPOSED_DOSES", 10**6 if way == "superposition" else -1)
    pop = population(EVENTS, "nocb" if way == "changing parameters" else None)
    value = total(pop, way == "changing parameters")
    slope = jax.jit(jax.jacfwd(value))
    gradient, hessian = np.asarray(slope(POINT)), np.asarray(jax.jit(jax.jacfwd(jax.jacfwd(value)))(POINT))
    for index in range(len(POINT)):
        step = 1e-3 * POINT[index]
        difference = central_difference(lambda x: float(value(x)), POINT, index, step)
        assert abs(gradient[index] - difference) <= GRADIENT * np.abs(gradient).max()
        row = [central_difference(lambda x, j=j: float(slope(x)[j]), POINT, index, step) for j in range(len(POINT))]
        np.testing.assert_allclose(hessian[index], row, atol=GRADIENT * np.abs(hessian).max(), rtol=0)


@pytest.mark.slow
def test_reverse_mode_gives_the_same_gradient():
    value = total(population(EVENTS), False)
    np.testing.assert_allclose(jax.jit(jax.grad(value))(POINT), jax.jacfwd(value)(POINT), rtol=1e-10)


@pytest.mark.parametrize("lag", [0.5, 1.5, 2.5, 13.0, 21.9, 22.1, 60.0])
def test_more_doses_before_a_steady_state_than_there_are_slots_are_not_a_number(lag):
    # From boundary to boundary, a lag of eleven intervals is as much as is provided for; by superposition any lag is.
    rows = [{"EVID": 1, "TIME": 0.0, "AMT": 10.0, "SS": 1, "II": 2.0}, {"EVID": 0, "TIME": 1.0}]
    pop = population(rows, "nocb")
    k = jnp.full((1, 2), K)
    arrivals = lag - 2.0 * np.arange(400)
    expected = sum(10 * np.exp(-K * (1.0 - arrivals[arrivals <= 1.0])))
    np.testing.assert_allclose(hx.pk.one_compartment(pop, k=K, V=1.0, lag=lag)[0, 1], expected, rtol=1e-10)
    found = hx.pk.one_compartment(pop, k=k, V=1.0, lag=lag)[0, 1]
    assert np.isnan(found) if lag > 22 else float(found) == pytest.approx(expected, rel=1e-10)
