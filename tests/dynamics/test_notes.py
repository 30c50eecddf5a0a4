"""What structural models say of doses and fields, and what is refused: steady states above all."""

import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import hierax as hx

K = 0.1
TIMES = [1.0, 6.0, 11.0]
AT_DOSE = {1: "central"}


def repeated(interval, **options):
    return hx.Population.from_grid(hx.Regimen(100, interval=interval, **options), TIMES, n=1)


def rhythm(t, y, p):
    """Elimination with a rhythm of 24 h."""
    return {"central": -K * (1 + 0.8 * jnp.sin(2 * jnp.pi * t / 24)) * y["central"]}


def amounts(pop, field, times=TIMES):
    found = np.asarray(hx.solve_ode(pop, field, {"central": 0.0}, doses=AT_DOSE, solver=hx.Grid(1e-8))["central"])[0]
    return found[np.isin(np.asarray(pop.times)[0], times) & (np.asarray(pop.records["evid"])[0] == 0)]


def for_ever(interval):
    """Return the amounts of a regimen that has run for a long time, by its closed form, dose by dose."""
    integral = lambda t: K * (t - 0.8 * 24 / (2 * np.pi) * np.cos(2 * np.pi * t / 24))  # noqa: E731
    doses = -interval * np.arange(200)
    return np.array([(100 * np.exp(integral(doses) - integral(t))).sum() for t in TIMES])


def test_a_clock_under_a_steady_state_is_said_unless_its_period_fits():
    # II of one period: the steady state is the regimen's, and nothing is said (warnings are errors here).
    np.testing.assert_allclose(amounts(repeated(24, steady=1), rhythm), for_ever(24), rtol=1e-6)
    with pytest.warns(hx.HieraxWarning, match="reads t, and is different at t and at t . II, at a steady-state dose"):
        found = amounts(repeated(12, steady=1), rhythm)
    # The intervals are all like the first: the rhythm's faster half alone, and that is not the regimen run for ever.
    fast = K * (12 + 0.8 * 24 / np.pi)
    first = 100 * np.exp(-K * (1 + 0.8 * 12 / np.pi * (1 - np.cos(np.pi / 12)))) / (1 - np.exp(-fast))
    assert found[0] == pytest.approx(first, rel=1e-6)
    assert np.abs(found / for_ever(12) - 1).max() > 0.3
    # A clock without a steady state is no matter.
    amounts(repeated(12, count=2), rhythm)


def test_a_lag_longer_than_the_interval_is_said_by_every_way():
    pop = repeated(12, steady=1)
    said = "lag is longer than II at a steady-state dose"
    with pytest.warns(hx.HieraxWarning, match=said):
        hx.pk.one_compartment(pop, k=K, V=1.0, lag=15.0)
    hx.pk.one_compartment(pop, k=K, V=1.0, lag=11.0)
    hx.pk.one_compartment(repeated(12, count=2), k=K, V=1.0, lag=15.0)

    def model(pop):
        lag = numpyro.param("lag", 1.0)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            conc = hx.pk.one_compartment(pop, k=K, V=1.0, lag=lag)
            hx.observe("dv", dist.Normal(conc, 1.0), pop)

    observed = hx.Population.from_subjects(
        [
            hx.Subject(name, hx.Regimen(100, interval=ii, steady=1), [1.0], {"dv": [9.0]})
            for name, ii in (("a", 12), ("b", 24))
        ]
    )
    hx.check(model, observed, show=False)
    with pytest.warns(hx.HieraxWarning, match=said + r" \(SS\) of subject a, and programs differ"):
        hx.evaluate(model, observed, {"lag": 15.0}, hx.NaivePooled())
    with pytest.warns(hx.HieraxWarning, match=said):
        hx.simulate(model, observed, params={"lag": 15.0})


def test_a_state_that_adds_up_is_solved_apart_under_a_steady_state():
    """The AUC since the SS record, beside an effect that is at its own steady state; the whole system has none."""
    pop = hx.Population.from_grid(hx.Regimen(100, interval=12, steady=1), [3.0, 12.0, 24.0], n=1)

    def field(t, y, p):
        return {"auc": p["conc"](t), "effect": 0.3 * (p["conc"](t) - y["effect"])}

    conc = hx.pk.one_compartment(pop, k=K, V=10.0, output="forcing")
    for solver in (hx.Grid(1e-9), hx.Adaptive(rtol=1e-10, atol=1e-12)):
        found = hx.solve_ode(pop, field, {"auc": 5.0, "effect": 0.0}, {"conc": conc}, doses={}, solver=solver)
        after = np.asarray(pop.records["evid"])[0] == 0
        auc, effect = (np.asarray(found[name])[0] for name in ("auc", "effect"))
        peak = 100 / 10 / (1 - np.exp(-12 * K))
        # Over one interval the AUC is dose/CL = 100/(0.1 · 10); the doses after the SS record are no part of it.
        later = [5 + peak / K * (1 - np.exp(-K * t)) for t in (3.0, 12.0, 24.0)]
        np.testing.assert_allclose(auc[after], later, rtol=1e-7)
        assert auc[~after] == pytest.approx(5.0)
        assert later[1] - 5 == pytest.approx(100.0)
        # effect' = 0.3 (c − effect), periodic: (peak·0.3/(0.3 − K)) (e^{−Kt} − b e^{−0.3t}).
        b = (1 - np.exp(-12 * K)) / (1 - np.exp(-12 * 0.3))
        periodic = peak * 0.3 / (0.3 - K) * (np.exp(-K * 3) - b * np.exp(-0.3 * 3))
        assert effect[after][0] == pytest.approx(periodic, rel=1e-6)


def test_float32_is_refused():
    code = (
        "import jax, numpy as np, hierax as hx\n"
        "pop = hx.Population.from_grid(hx.Regimen(100), [1.0, 2.0])\n"
        "conc = hx.pk.one_compartment(pop, k=0.1, V=1.0, ka=0.1)\n"
        "assert np.isfinite(conc).all(), conc\n"
        "try:\n"
        "    hx.solve_ode(pop, lambda t, y, p: {'c': -y['c']}, {'c': 0.0}, doses={1: 'c'})\n"
        "except ValueError as error:\n"
        "    assert 'numpyro.enable_x64()' in str(error), error\n"
        "else:\n"
        "    raise AssertionError('solved in float32')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "JAX_ENABLE_X64": "0"})
