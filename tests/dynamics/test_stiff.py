"""Stiff systems by ``Adaptive``, against SciPy's Radau at rtol 1e-12, atol 1e-16: relative error by state."""

import jax
import numpy as np
import pytest
import scipy.integrate

import hierax as hx

# The bar for every state at ten log-spaced times.
STIFF = 1e-6
SOLVER = hx.Adaptive(rtol=1e-9, atol=1e-15, max_steps=8192)


def robertson(t, y, p):
    slow = 0.04 * y["A"] - 1e4 * y["B"] * y["C"]
    fast = 3e7 * y["B"] ** 2
    return {"A": -slow, "B": slow - fast, "C": fast}


def tmdd(t, y, p):
    """Target-mediated disposition, full binding: ligand, receptor, complex."""
    bound = 9.1 * y["L"] * y["R"] - 0.1 * y["P"]
    return {
        "L": -0.0015 * y["L"] - bound,
        "R": 0.1068 - 0.0089 * y["R"] - bound,
        "P": bound - 0.003 * y["P"],
    }


CASES = {
    # The system, its start, a dose of A or L (at time 0), first and last time.
    "robertson": (robertson, {"A": 0.0, "B": 0.0, "C": 0.0}, 1.0, (1e-4, 1e5)),
    "tmdd": (tmdd, {"L": 0.0, "R": 12.0, "P": 0.0}, 100.0, (1e-3, 2e3)),
}


@pytest.mark.parametrize("case", CASES)
def test_stiff_systems(case):
    field, start, amount, (first, last) = CASES[case]
    times = np.geomspace(first, last, 10)
    pop = hx.Population.from_grid(hx.Regimen(amount), times, n=1)
    dosed = next(iter(start))
    found = jax.jit(lambda pop: hx.solve_ode(pop, field, start, doses={1: dosed}, solver=SOLVER))(pop)
    names = list(start)
    reference = scipy.integrate.solve_ivp(
        lambda t, y: [field(t, dict(zip(names, y, strict=True)), None)[name] for name in names],
        (0.0, last),
        [start[name] + amount * (name == dosed) for name in names],
        method="Radau",
        t_eval=times,
        rtol=1e-12,
        atol=1e-16,
    )
    for name, expected in zip(names, reference.y, strict=True):
        np.testing.assert_allclose(np.asarray(found[name])[0, 1:], expected, rtol=STIFF, atol=0)
