import jax
import numpy as np
import pandas as pd
import pytest
from helpers import EXACT
from scipy.integrate import solve_ivp

import hierax as hx


def dosing(doses, times, columns=("TIME", "AMT", "RATE", "CMT")):
    rows = [dict(zip(columns, dose, strict=True), EVID=1, DV=np.nan) for dose in doses]
    rows += [{"TIME": t, "AMT": 0, "RATE": 0, "CMT": 0, "EVID": 0, "DV": 1.0} for t in times]
    frame = pd.DataFrame(rows).assign(ID=1).sort_values("TIME", kind="stable")
    return hx.read_nonmem(frame)


def integrate(doses, times, k, ka, bioavailability=1.0):
    """Integrate depot and central amount piecewise between boundaries, by an independent solver."""
    jumps, rates = {}, []
    for t, amount, rate, cmt in doses:
        slot = 1 if ka is None or cmt == 2 else 0
        if rate:
            rates.append((t, t + bioavailability * amount / rate, rate, slot))
        else:
            jumps.setdefault(t, np.zeros(2))[slot] += bioavailability * amount
    edges = sorted({0.0, *times, *jumps, *(edge for start, end, *_ in rates for edge in (start, end))})
    state, out = np.zeros(2) + jumps.get(0.0, 0), {}
    out[0.0] = state[1]
    for left, right in zip(edges, edges[1:], strict=False):
        flow = np.zeros(2)
        for start, end, rate, slot in rates:
            flow[slot] += rate if start <= left and right <= end + 1e-12 else 0.0

        def field(_, y, flow=flow):
            absorbed = 0.0 if ka is None else ka * y[0]
            return np.array([-absorbed, absorbed - k * y[1]]) + flow

        state = solve_ivp(field, (left, right), state, method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
        out[right] = state[1] + jumps.get(right, np.zeros(2))[1]
        state = state + jumps.get(right, 0)
    return np.array([out[t] for t in times])


TIMES = [0.5, 1.0, 2.5, 5.0, 6.0, 9.0, 13.0, 24.0, 40.0]


@pytest.mark.parametrize("ka", [None, 1.3, 0.2])
@pytest.mark.parametrize(
    "doses",
    [
        [(0.0, 100.0, 0.0, 1)],
        [(0.0, 100.0, 0.0, 1), (6.5, 50.0, 0.0, 1), (12.0, 70.0, 0.0, 1)],
        [(0.0, 100.0, 25.0, 1)],
        [(0.0, 100.0, 10.0, 1), (3.0, 60.0, 30.0, 1), (8.0, 20.0, 0.0, 1)],
        [(0.0, 100.0, 0.0, 1), (2.0, 60.0, 30.0, 2), (8.0, 20.0, 0.0, 2)],
    ],
)
def test_against_an_ode_solver(doses, ka):
    if ka is None:
        # Without a depot, CMT 1 is the central compartment, and there is no CMT 2.
        doses = [(*dose[:3], 1) for dose in doses]
    pop = dosing(doses, TIMES)
    # k = CL/V = 0.2: with ka = 0.2 the rates are equal.
    found = np.asarray(hx.pk.one_compartment(pop, CL=2.0, V=10.0, ka=ka, F=0.8))[pop.mask["dv"]]
    expected = integrate(doses, TIMES, 0.2, ka, 0.8) / 10.0
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_addl_is_the_same_as_doses_written_out():
    base = {"ID": 1, "DV": 1.0, "EVID": 0, "AMT": 0.0, "ADDL": 0, "II": 0.0}
    samples = [{**base, "TIME": t} for t in (3.0, 30.0, 60.0)]
    short = hx.read_nonmem(
        pd.DataFrame([{**base, "TIME": 0.0, "EVID": 1, "AMT": 100.0, "ADDL": 4, "II": 12.0, "DV": np.nan}, *samples])
    )
    written = [{**base, "TIME": 12.0 * i, "EVID": 1, "AMT": 100.0, "DV": np.nan} for i in range(5)]
    long = hx.read_nonmem(pd.DataFrame([*written, *samples]).sort_values("TIME", kind="stable"))
    one = np.asarray(hx.pk.one_compartment(short, CL=1.0, V=20.0, ka=0.7))[short.mask["dv"]]
    other = np.asarray(hx.pk.one_compartment(long, CL=1.0, V=20.0, ka=0.7))[long.mask["dv"]]
    np.testing.assert_allclose(one, other, rtol=EXACT)


def test_many_doses_superpose():
    doses = [(8.0 * i, 100.0, 0.0, 1) for i in range(60)]
    pop = dosing(doses, [479.0])
    found = float(np.asarray(hx.pk.one_compartment(pop, k=0.1, V=1.0))[pop.mask["dv"]][0])
    assert found == pytest.approx(sum(100 * np.exp(-0.1 * (479 - 8 * i)) for i in range(60)), rel=EXACT)


def test_micro_constants_and_clearance_agree():
    pop = dosing([(0.0, 100.0, 0.0, 1)], TIMES)
    np.testing.assert_allclose(
        hx.pk.one_compartment(pop, CL=2.0, V=10.0, ka=1.0),
        hx.pk.one_compartment(pop, k=0.2, V=10.0, ka=1.0),
        rtol=EXACT,
    )


def test_derivatives_are_finite_at_equal_rates_and_at_the_dose():
    pop = dosing([(0.0, 100.0, 20.0, 1), (0.0, 50.0, 0.0, 1)], [0.0, 5.0, 7.0])

    def total(theta):
        return hx.pk.one_compartment(pop, CL=theta[0], V=theta[1], ka=theta[2], F=theta[3]).sum()

    point = np.array([2.0, 10.0, 0.2, 0.9])
    assert np.isfinite(jax.jit(jax.hessian(total))(point)).all()
    assert np.isfinite(jax.jit(jax.grad(total))(point)).all()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (dict(CL=np.ones((3, 3)), V=1.0), r"CL has shape \(3, 3\).*\(subject, subject\) comes from broadcasting"),
        (dict(CL=np.ones(3), V=1.0), r"Use `CL\[:, None\]`"),
        (dict(CL=1.0, V=np.ones((3, 2))), r"V changes between records.*Name read_nonmem\(interpolation='nocb'\)"),
        (dict(CL=1.0, V=np.ones((3, 1, 1))), r"V has shape \(3, 1, 1\)"),
        (dict(V=1.0), r"exactly one of CL and k"),
        (dict(CL=1.0, k=1.0, V=1.0), r"exactly one of CL and k"),
        (dict(CL=1.0), r"needs V"),
    ],
)
def test_shapes_that_are_refused(arguments, text):
    frame = pd.DataFrame(
        {"ID": np.repeat([1, 2, 3], 2), "TIME": [0.0, 1.0] * 3, "DV": [np.nan, 1.0] * 3, "AMT": [10.0, 0] * 3}
    )
    with pytest.raises(ValueError, match=text):
        hx.pk.one_compartment(hx.read_nonmem(frame), **arguments)
