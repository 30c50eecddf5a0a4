"""Programs that read earlier observations are simulated record by record; moments in closed form."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest

import hierax as hx

PHI, SIGMA, RECORDS = 0.75, 0.5366, 16
POSITIVE = dist.constraints.positive


def before(dv):
    return jnp.concatenate([jnp.zeros((dv.shape[0], 1)), dv[:, :-1]], axis=1)


def autoregressive(pop):
    phi = numpyro.param("phi", PHI)
    sigma = numpyro.param("sigma", SIGMA, constraint=POSITIVE)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, 1e-3))
        level = numpyro.deterministic("LEVEL", 1.0 + eta)
        numpyro.deterministic("MEAN", level + phi * before(pop.dv["dv"]))
        hx.observe("dv", dist.Normal(eta + phi * before(pop.dv["dv"]), sigma), pop)


def markov(pop):
    stay = numpyro.param("stay", jnp.array([0.1, 0.8]), constraint=dist.constraints.unit_interval)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, 1e-3))
        chance = stay[before(pop.dv["dv"]).astype(int)]
        hx.observe("dv", dist.Bernoulli(logits=jnp.log(chance / (1 - chance)) + eta), pop)


def table(values, dose=False):
    n, records = values.shape
    frame = pd.DataFrame(
        {"ID": np.repeat(np.arange(n) + 1, records), "TIME": np.tile(np.arange(records), n), "DV": values.ravel()}
    )
    return frame.assign(AMT=0.0, EVID=0) if dose else frame


@pytest.fixture(scope="module")
def pop():
    # White noise: what is drawn must not follow it.
    return hx.read_nonmem(table(np.random.default_rng(0).standard_normal((20, RECORDS))))


def stationary(record):
    return SIGMA * np.sqrt((1 - PHI ** (2 * (record + 1))) / (1 - PHI**2))


def test_ar1_has_the_sd_and_correlation_of_its_recursion(pop):
    """An AR(1) process: SD 0.80 and correlation 0.74 in closed form; from the data's previous values 0.537."""
    drawn = hx.simulate(autoregressive, pop, n=1000, seed=1)
    values = drawn["dv"].to_numpy().reshape(-1, RECORDS)
    expected = stationary(np.arange(RECORDS))
    assert expected[-1] == pytest.approx(0.81, abs=0.01)
    # 20 000 series: the error of an SD is 0.5 % of it; five of them.
    np.testing.assert_allclose(values.std(0), expected, rtol=0.025)
    correlation = np.corrcoef(values[:, -2], values[:, -1])[0, 1]
    assert correlation == pytest.approx(PHI * expected[-2] / expected[-1], abs=0.02)
    # What depends on the drawn data is that of the drawn data.
    mean = drawn["MEAN"].to_numpy()
    np.testing.assert_allclose(mean[..., 1:] - PHI * drawn["dv"].to_numpy()[..., :-1], mean[..., :1].repeat(15, -1))


def test_markov_chain_has_its_transitions(pop):
    binary = hx.read_nonmem(table((np.random.default_rng(1).random((20, RECORDS)) < 0.5).astype(float)))
    values = hx.simulate(markov, binary, n=500, seed=2)["dv"].to_numpy().reshape(-1, RECORDS)
    last, now = values[:, :-1].ravel(), values[:, 1:].ravel()
    assert now[last == 0].mean() == pytest.approx(0.1, abs=0.01)
    assert now[last == 1].mean() == pytest.approx(0.8, abs=0.01)
    # The stationary share: 0.1 / (0.1 + 0.2).
    assert values[:, -1].mean() == pytest.approx(1 / 3, abs=0.03)


def test_all_users_of_simulation_see_it(pop):
    fit = hx.evaluate(autoregressive, pop, {}, hx.FO())
    check = hx.vpc(fit, n=400, bins=[RECORDS - 4.5])
    late = check.table[check.table["time"] > RECORDS - 5].set_index("quantile")
    # The 90 % quantile of the last four records of so many subjects, by NumPy: 0.99. That of the innovation is 0.69.
    values, rng = np.zeros((4000, len(pop))), np.random.default_rng(0)
    last = []
    for _ in range(RECORDS):
        values = PHI * values + SIGMA * rng.normal(size=values.shape)
        last = [*last[-3:], values]
    expected = np.median(np.quantile(np.concatenate(last, axis=1), 0.9, axis=1))
    # 400 replicates, whose quantiles have an SD of 10 %.
    assert late.loc[0.9, "simulated"] == pytest.approx(expected, rel=0.025)
    effects = hx.simulate(fit, n=3)
    assert effects["LEVEL"].dims == ("draw", "subject")


def test_doses_stay_no_data_and_a_design_without_data_is_drawn_in_full(pop):
    frame = table(np.zeros((4, RECORDS)), dose=True)
    dose = frame["TIME"] == 3
    dosed = frame.assign(EVID=np.where(dose, 1, 0), AMT=np.where(dose, 10.0, 0.0), DV=frame["DV"].mask(dose))
    drawn = hx.simulate(autoregressive, hx.read_nonmem(dosed), n=2000)["dv"].to_numpy()
    assert np.isnan(drawn[:, :, 3]).all()
    # The record after the dose reads 0 there, as it does in the fit: its SD is the innovation's.
    assert drawn[:, :, 4].std() == pytest.approx(SIGMA, rel=0.03)
    later = hx.simulate(autoregressive, pop[:2].at_times(np.arange(6.0)), n=1000)["dv"].to_numpy()
    assert later[:, :, 5].std() == pytest.approx(stationary(5), rel=0.05)


def test_what_cannot_be_drawn_in_order_is_refused_by_name(pop):
    def itself(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
            hx.observe("dv", dist.Normal(eta + 0.1 * pop.dv["dv"], 1.0), pop)

    def later(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
            hx.observe("dv", dist.Normal(eta + 0.1 * jnp.roll(pop.dv["dv"], -1, axis=1), 1.0), pop)

    def effect(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(pop.dv["dv"][:, :1], 1.0))
            hx.observe("dv", dist.Normal(eta, 1.0), pop)

    for model in (itself, later):
        with pytest.raises(hx.ModelError, match=r"\['dv'\] depends on the observation .* of that record itself or"):
            hx.simulate(model, pop)
    with pytest.raises(hx.ModelError, match=r"random effects \['eta'\] depend on observations"):
        hx.simulate(effect, pop)
    with pytest.raises(hx.ModelError, match=r"the design has no observations of \['dv'\]"):
        hx.predict(autoregressive, pop.at_times([0.0, 1.0]))


def test_other_programs_are_not_drawn_in_order(theo_fit):
    from hierax.infer.simulate.simulation import reads_data

    assert reads_data(theo_fit.program, theo_fit.pop) == frozenset()


def test_parametric_bootstrap_of_an_ar1_keeps_its_correlation():
    """Data drawn from the data's previous values are white noise to the fit: phi would fall to half or less."""
    truth = hx.simulate(autoregressive, hx.read_nonmem(table(np.zeros((12, RECORDS)))), seed=4)["dv"].to_numpy()[0]
    fit = hx.fit(autoregressive, hx.read_nonmem(table(truth)), hx.FOCE(), progress=False)
    found = hx.bootstrap(fit, n=8, kind="parametric").estimates["phi"]
    # An SE of 0.05, of a mean of eight 0.02; five of them, and the known small bias of the estimator, -(1 + 3 phi) / T.
    assert found.mean() == pytest.approx(float(fit.params["phi"]) - 0.04, abs=0.1)
    assert hx.plot.individual_fits(fit, most=2).axes[0].lines[0].get_xdata().tolist() == list(range(RECORDS))
