"""One, two and three compartments, values and derivatives, against matrix exponentials of 50 digits.

Values are compared entry by entry. A derivative is compared with the largest of its order on the curve, over times and
compartments: entries that vanish with the time since the dose (as its square, its third power, ...) have no scale of
their own, and no sum of exponentials of 16 digits holds them to relative precision.
"""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pandas as pd
import pytest

import hierax as hx

mp.mp.dps = 50
TIMES = [0.01, 0.5, 3.0, 12.0]
MODELS = {1: hx.pk.one_compartment, 2: hx.pk.two_compartment, 3: hx.pk.three_compartment}
NAMES = {1: ["k"], 2: ["k", "k12", "k21"], 3: ["k", "k12", "k21", "k13", "k31"]}
BAR = 1e-10


def exact_amounts(theta, n, oral, time):
    """Return the amounts after 100 units into the first compartment, by the exponential of the rate matrix."""
    first = 1 if oral else 0
    a = mp.zeros(n + first)
    a[first, first] = -theta[0]
    for p in range(1, n):
        out, back = theta[2 * p - 1], theta[2 * p]
        a[first, first] -= out
        a[first + p, first] = out
        a[first + p, first + p] = -back
        a[first, first + p] = back
    if oral:
        a[0, 0], a[1, 0] = -theta[-1], theta[-1]
    power = mp.expm(a * time, method="taylor")
    return mp.matrix([100 * power[i, 0] for i in range(n + first)])


def exact(theta, n, oral, time):
    """Return amounts, and their derivatives with respect to relative changes of the parameters."""
    theta, size, h = [mp.mpf(float(x)) for x in theta], len(theta), mp.mpf(10) ** -12

    def at(*moves):
        moved = list(theta)
        for index, sign in moves:
            moved[index] += sign * h * theta[index]
        return exact_amounts(moved, n, oral, mp.mpf(time))

    middle = at()
    # Differences at 50 digits with steps of 1e-12 are exact to 24 digits, and to 12 fewer in the second order.
    first = [(at((i, 1)) - at((i, -1))) / (2 * h) for i in range(size)]
    second = np.zeros((size, size, len(middle)))
    for i in range(size):
        for j in range(i + 1):
            if i == j:
                value = (at((i, 1)) - 2 * middle + at((i, -1))) / h**2
            else:
                mixed = at((i, 1), (j, 1)) - at((i, 1), (j, -1)) - at((i, -1), (j, 1)) + at((i, -1), (j, -1))
                value = mixed / (4 * h**2)
            second[i, j] = second[j, i] = [float(x) for x in value]
    return (
        np.array([float(x) for x in middle]),
        np.array([[float(x) for x in row] for row in first]),
        second,
    )


def computed(theta, n, oral):
    frame = pd.DataFrame({"ID": 1, "TIME": [0.0, *TIMES], "DV": [np.nan, 1, 2, 3, 4], "AMT": [100.0, 0, 0, 0, 0]})
    pop = hx.read_nonmem(frame)
    names = NAMES[n] + (["ka"] if oral else [])

    def run(change):
        values = jnp.asarray(theta) * (1 + change)
        arguments = dict(zip(names, values, strict=True)) | {"V" if n == 1 else "V1": 1.0}
        return jnp.stack([x[0, 1:] for x in MODELS[n](pop, output="amounts", **arguments).values()], -1)

    zero = jnp.zeros(len(theta))
    first = jax.jit(jax.jacfwd(run))(zero)
    second = jax.jit(jax.jacfwd(jax.jacfwd(run)))(zero)
    return np.asarray(run(zero)), np.moveaxis(first, -1, 1), np.moveaxis(second, 1, -1)


def compare(theta, n, oral, bar):
    found = computed(theta, n, oral)
    expected = [np.stack(part) for part in zip(*(exact(theta, n, oral, time) for time in TIMES), strict=True)]
    np.testing.assert_allclose(found[0], expected[0], rtol=bar, atol=0)
    for order in (1, 2):
        error = np.abs(found[order] - expected[order]).max()
        assert error <= bar * np.abs(expected[order]).max(), order


@pytest.mark.parametrize("oral", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_random_parameters(n, oral):
    rng = np.random.default_rng(n)
    compare(np.exp(rng.uniform(-3, 1, 2 * n - 1 + oral)), n, oral, BAR)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2, 3])
def test_more_random_parameters(n):
    rng = np.random.default_rng(10 + n)
    for oral in (False, True):
        # References of 50 digits take many seconds.
        for _ in range(2):
            compare(np.exp(rng.uniform(-4, 2, 2 * n - 1 + oral)), n, oral, BAR)


# References of 50 digits take seconds: three of the gaps are left to the slow tests.
@pytest.mark.parametrize("gap", [1e-8, *(pytest.param(gap, marks=pytest.mark.slow) for gap in (1e-2, 1e-5, 0.0))])
@pytest.mark.parametrize(
    ("n", "oral", "point"),
    [
        # Absorption as fast as elimination.
        (1, True, lambda gap: [0.5, 0.5 * (1 + gap)]),
        # Two rates of the disposition coincide where exchange stops and k21 = k.
        (2, False, lambda gap: [0.5, max(gap, 1e-8), 0.5 * (1 + gap)]),
        # The same, and absorption as fast as both.
        (2, True, lambda gap: [0.5, max(gap, 1e-8), 0.5 * (1 + gap), 0.5 * (1 + gap)]),
        # Two peripheral compartments of the same rate constant.
        (3, False, lambda gap: [0.5, 0.3, 0.2, 0.1, 0.2 * (1 + gap)]),
        (3, True, lambda gap: [0.5, max(gap, 1e-8), 0.5 * (1 + gap), 0.2, 0.05, 1.0]),
    ],
    ids=["ka = k", "double", "triple", "k21 = k31", "three, double"],
)
def test_near_equal_rates(n, oral, point, gap):
    compare(point(gap), n, oral, BAR)


def all_three_rates(gap, exchange, oral):
    """No exchange, and both peripheral compartments empty as fast as the central one.

    Three points a little apart stand in for one: their weights are inverse squares of the distance.
    """
    point = [0.2, exchange, 0.2 * (1 + gap), 0.5 * exchange, 0.2 * (1 - gap), *([1.0] if oral else [])]
    compare(point, 3, oral, 1e-8)


def test_all_three_rates_of_three_compartments():
    all_three_rates(1e-8, 1e-9, False)


@pytest.mark.slow
def test_all_three_rates_of_three_compartments_from_near_to_at_the_point():
    for oral in (False, True):
        for gap in (0.0, 1e-8, 1e-4):
            for exchange in (1e-9, 1e-5):
                all_three_rates(gap, exchange, oral)


@pytest.mark.slow
def test_both_modes_of_differentiation_where_all_three_rates_coincide():
    frame = pd.DataFrame({"ID": 1, "TIME": [0.0, *TIMES], "DV": [np.nan, 1, 2, 3, 4], "AMT": [100.0, 0, 0, 0, 0]})
    pop = hx.read_nonmem(frame)

    def curve(theta):
        k, k12, k21, k13, k31 = theta
        return hx.pk.three_compartment(pop, k=k, k12=k12, k21=k21, k13=k13, k31=k31, V1=1.0)[0]

    point = jnp.array([0.2, 0.0, 0.2, 0.0, 0.2])
    forward, reverse = jax.jit(jax.jacfwd(curve))(point), jax.jit(jax.jacrev(curve))(point)
    np.testing.assert_allclose(curve(point), 100 * np.exp(-0.2 * pop.times[0]), rtol=1e-10)
    np.testing.assert_allclose(forward, reverse, rtol=1e-8, atol=1e-8)
    assert np.isfinite(forward).all()


@pytest.mark.slow
def test_absorption_as_fast_as_a_mode_of_two_compartments():
    k, k12, k21 = 0.5, 0.3, 0.2
    slow = 0.5 * ((k + k12 + k21) - np.sqrt((k + k12 + k21) ** 2 - 4 * k * k21))
    for gap in (1e-3, 1e-9, 0.0):
        compare([k, k12, k21, slow * (1 + gap)], 2, True, BAR)


def test_no_exchange_and_no_elimination():
    # At Q = 0 the peripheral compartment does not exist; without elimination nothing is lost.
    frame = pd.DataFrame({"ID": 1, "TIME": [0.0, *TIMES], "DV": [np.nan, 1, 2, 3, 4], "AMT": [100.0, 0, 0, 0, 0]})
    pop = hx.read_nonmem(frame)
    one = hx.pk.one_compartment(pop, CL=2.0, V=5.0, ka=1.0)
    np.testing.assert_allclose(hx.pk.two_compartment(pop, CL=2.0, V1=5.0, Q=0.0, V2=3.0, ka=1.0), one, rtol=1e-12)
    three = hx.pk.three_compartment(pop, CL=2.0, V1=5.0, Q2=0.0, V2=3.0, Q3=0.0, V3=9.0, ka=1.0)
    np.testing.assert_allclose(three, one, rtol=1e-12)
    for k12, k21 in ((0.4, 0.3), (0.0, 0.0)):
        kept = hx.pk.three_compartment(pop, k=0.0, k12=k12, k21=k21, k13=0.1, k31=0.2, V1=1.0, output="amounts")
        np.testing.assert_allclose(sum(kept.values()), 100.0, rtol=1e-12)
    kept = hx.pk.two_compartment(pop, k=0.0, k12=0.4, k21=0.3, V1=1.0, output="amounts")
    np.testing.assert_allclose(kept["central"] + kept["peripheral1"], 100.0, rtol=1e-12)
