"""Timings of reading and of the closed forms, each with the accuracy that it was reached at; run by `make bench`."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import zoo
from memory import peak_gigabytes

import hierax as hx
from hierax.dynamics.linear import closed_form

pytestmark = pytest.mark.benchmark


def test_reading_a_million_rows(benchmark, tmp_path):
    rng = np.random.default_rng(0)
    n, first = 100_000, np.arange(1_000_000) % 10 == 0
    table = pd.DataFrame(
        {
            "ID": np.repeat(np.arange(1, n + 1), 10),
            "TIME": np.tile(1.5 * np.arange(10), n),
            "DV": np.where(first, np.nan, rng.lognormal(size=10 * n).round(3)),
            "AMT": np.where(first, 100.0, 0.0),
            "ADDL": np.where(first, 2, 0),
            "II": np.where(first, 4, 0),
            "WT": np.repeat(rng.normal(70, 10, n).round(1), 10),
            "CR": rng.normal(90, 9, 10 * n).round(),
            "SEX": np.repeat(rng.choice(["F", "M"], n), 10),
        }
    )
    table.to_csv(tmp_path / "big.csv", index=False, na_rep=".")
    options = {"covariates": ["WT", "CR", "SEX"], "interpolation": "nocb"}
    pop = benchmark.pedantic(lambda: hx.read_nonmem(tmp_path / "big.csv", **options), rounds=3)
    benchmark.extra_info["peak_memory_mb"] = 1e3 * peak_gigabytes()
    assert pop.n_observations == 900_000


@pytest.mark.parametrize("doses", [1, 3, 12])
@pytest.mark.parametrize("way", ["superposition", "propagation"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_jacobian_of_a_closed_form(benchmark, monkeypatch, n, way, doses):
    """Concentrations and their derivatives in all parameters: 120 subjects, 57 samples, oral doses."""
    monkeypatch.setattr(closed_form, "SUPERPOSED_DOSES", 10**6 if way == "superposition" else -1)
    times = np.linspace(0.5, 24.0 * doses + 48, 57)
    pop = hx.Population.from_grid(hx.Regimen(100, interval=24, count=doses), times, n=120)
    names = [["CL", "V"], ["CL", "V1", "Q", "V2"], ["CL", "V1", "Q2", "V2", "Q3", "V3"]][n - 1]
    model = [hx.pk.one_compartment, hx.pk.two_compartment, hx.pk.three_compartment][n - 1]
    values = jnp.array([4.0, 70.0, 5.0, 50.0, 1.0, 100.0])[: len(names)]

    def curve(change):
        arguments = {name: v * (1 + change[i]) for i, (name, v) in enumerate(zip(names, values, strict=True))}
        return model(pop, **arguments, ka=1.0 + change[-1])

    run = jax.jit(jax.jacfwd(curve))
    zero = jnp.zeros(len(names) + 1)
    benchmark(lambda: jax.block_until_ready(run(zero)))
    step = 1e-4
    difference = (curve(zero.at[0].set(step)) - curve(zero.at[0].set(-step))) / (2 * step)
    error = float(jnp.abs(run(zero)[..., 0] - difference).max() / jnp.abs(difference).max())
    benchmark.extra_info["error_against_differences"] = error
    assert error < 1e-6


def test_foce_of_the_multiple_dose_design(benchmark):
    """A whole fit, compiled: 120 subjects, 58 rows each, 12 doses (NONMEM: 41 s for its 6 951 rows)."""
    design = zoo.oral_design(120)
    truth = {"cl": 4.0, "v": 70.0, "ka": 1.0, "omega": 0.3 * jnp.ones(3), "sigma": 0.2}
    data = design.with_dv(dv=hx.simulate(zoo.oral, design, params=truth, seed=1)["dv"].values[0])
    fit = benchmark(lambda: hx.fit(zoo.oral, data, hx.FOCE(), progress=False))
    benchmark.extra_info.update(ofv=fit.ofv, evaluations=fit.timing["evaluations"], cl=float(fit.params["cl"]))
    assert fit.result is hx.Result.converged
