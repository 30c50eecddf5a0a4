"""Comparing models, and intervals that do not take the likelihood for quadratic."""

import types
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import scipy.stats
import zoo
from zoo import POSITIVE

import hierax as hx
from hierax.analyse.bootstrap import Bootstrap


def lines(pop):
    """Intercepts alone: sleepstudy with no random slope."""
    beta = numpyro.param("beta", jnp.array([250.0, 10.0]))
    omega = numpyro.param("omega", 30.0, constraint=POSITIVE)
    sigma = numpyro.param("sigma", 30.0, constraint=POSITIVE)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, omega))
        hx.observe("dv", dist.Normal(beta[0] + eta + beta[1] * pop.times, sigma), pop)


@pytest.fixture(scope="module")
def pair(sleep_pop):
    options = {"progress": False}
    return hx.fit(lines, sleep_pop, hx.FOCE(), **options), hx.fit(zoo.lines_diagonal, sleep_pop, hx.FOCE(), **options)


def test_compare_is_a_table(pair):
    smaller, larger = pair
    table = hx.compare({"intercepts": smaller, "slopes": larger})
    assert list(table.index) == ["slopes", "intercepts"]
    np.testing.assert_allclose(table["ΔAIC"].iloc[1], smaller.aic - larger.aic)
    assert table.loc["slopes", "parameters"] == 5


def test_a_variance_at_its_boundary(pair):
    """One more variance: half of χ²(0) and half of χ²(1), so half the p of χ²(1)."""
    smaller, larger = pair
    test = hx.lrt(smaller, larger)
    assert (test.df, test.boundary) == (1, 1)
    assert test.reference == "0.5·χ²(0) + 0.5·χ²(1)"
    np.testing.assert_allclose(test.p_value, 0.5 * scipy.stats.chi2.sf(test.statistic, 1))
    plain = hx.lrt(smaller, larger, boundary=0)
    np.testing.assert_allclose(plain.p_value, scipy.stats.chi2.sf(test.statistic, 1))
    with pytest.raises(ValueError, match="swap them"):
        hx.lrt(larger, smaller)


def test_what_cannot_be_compared(pair, theo_fit, theo_pop):
    smaller, larger = pair
    with pytest.raises(ValueError, match="of different data"):
        hx.compare({"a": smaller, "b": theo_fit})
    other = hx.fit(zoo.theophylline, theo_pop, hx.FO(), progress=False)
    with pytest.raises(ValueError, match=r"of different approximations: \{'foce': 'FOCE with interaction', 'fo'"):
        hx.compare({"foce": theo_fit, "fo": other})
    both = {"foce": hx.log_likelihood(theo_fit, hx.AGQ(7)), "fo": hx.log_likelihood(other, hx.AGQ(7))}
    assert hx.compare(both).index[0] == "foce"
    with pytest.raises(ValueError, match="needs two models"):
        hx.compare({"a": smaller})


def test_profile_of_a_linear_model(pair):
    """R's lme4 profiles the same likelihood: the ends are where −2 log L has risen by 3.84, found anew here."""
    _, larger = pair
    found = hx.profile(larger, "sigma")
    assert found.low < larger.params["sigma"] < found.high
    for end in (found.low, found.high):
        held = hx.fit(
            zoo.lines_diagonal,
            larger.pop,
            hx.FOCE(),
            progress=False,
            init={**larger.params, "sigma": end},
            fixed=["sigma"],
        )
        rise = 2 * (larger.log_likelihood - held.log_likelihood)
        np.testing.assert_allclose(rise, scipy.stats.chi2.ppf(0.95, 1), atol=0.02)
    with pytest.raises(ValueError, match=r"profile of 'tau': there is no such free parameter. There are \['beta\[0\]'"):
        hx.profile(larger, "tau")


def test_sir_of_a_linear_model(pair):
    """Fixed effects are nearly normal: the same SDs as the asymptotic ones, of more than 500 effective draws (3 %)."""
    _, larger = pair
    found = hx.sir(larger, samples=3000)
    assert found.pareto_k < 0.7
    assert found.ess > 500
    se = larger.covariance().se
    np.testing.assert_allclose(found.draws["beta[1]"].std(), se["beta[1]"], rtol=0.1)
    # The SD of a random effect is skewed to the right: its interval is too.
    interval = found.interval().loc["omega[1]"]
    estimate = larger.params["omega"][1]
    assert interval.iloc[1] - estimate > estimate - interval.iloc[0]


def own_slopes(pop, dv):
    """Each subject's slope by least squares, (..., subject): in a balanced design their mean is the estimate."""
    days = np.asarray(pop.times)[0] - np.asarray(pop.times)[0].mean()
    return (dv * days).sum(-1) / (days**2).sum()


def test_bootstrap_by_cases(pair, tmp_path):
    """Each replicate's slope is the mean of its subjects' own slopes, to a hundredth of a standard error."""
    _, larger = pair
    found = hx.bootstrap(larger, 30, checkpoint=tmp_path / "boot")
    assert len(found.estimates) == 30
    slopes = own_slopes(larger.pop, np.asarray(larger.pop.dv["dv"]))
    drawn = [np.random.default_rng([0, k]).choice(18, 18) for k in range(30)]
    atol = 0.01 * larger.covariance().se["beta[1]"]
    np.testing.assert_allclose(found.estimates["beta[1]"], [slopes[rows].mean() for rows in drawn], atol=atol)
    np.testing.assert_allclose(found.se["beta[1]"], found.estimates["beta[1]"].std())
    # From the file: nothing is fitted again, and the numbers are the same.
    again = hx.bootstrap(larger, 30, checkpoint=tmp_path / "boot")
    assert again.estimates.equals(found.estimates)
    with ThreadPoolExecutor(2) as executor:
        threads = hx.bootstrap(larger, 6, executor=executor)
    few = hx.bootstrap(larger, 6)
    assert threads.estimates.equals(few.estimates)
    assert few.estimates.equals(found.estimates.loc[few.estimates.index])


def test_parametric_bootstrap_keeps_the_design(pair):
    smaller, _ = pair
    found = hx.bootstrap(smaller, 20, kind="parametric")
    assert set(found.summary().columns) == {"estimate", "bias", "SE", "2.5 %", "97.5 %"}
    drawn = hx.simulate(smaller, n=20, seed=0, parameters="estimate")["dv"].values
    atol = 0.01 * smaller.covariance().se["beta[1]"]
    np.testing.assert_allclose(found.estimates["beta[1]"], own_slopes(smaller.pop, drawn).mean(-1), atol=atol)


def test_bootstrap_keeps_priors_that_count(pair):
    """A prior of SD 0.3 far from the data (SE 7) holds the intercept in every replicate."""
    _, larger = pair
    prior = {"beta": dist.Normal(jnp.array([200.0, 10.0]), jnp.array([0.3, 3.0]))}
    pop, model = larger.pop, larger.program.model
    fit = hx.fit(model, pop, larger.estimator, priors=prior, use_priors=True, progress=False)
    found = hx.bootstrap(fit, 3)
    np.testing.assert_allclose(found.estimates["beta[0]"], 200.0, atol=1.0)


@pytest.mark.slow
def test_intervals_after_saem(theo_pop):
    """Bootstrap fits by SAEM again; the profile is of the likelihood by quadrature, from its own optimum."""
    fit = hx.fit(zoo.theophylline, theo_pop, hx.SAEM(objective=hx.AGQ(5)), progress=False)
    found = hx.bootstrap(fit, 4)
    assert len(found.estimates) == 4
    se = fit.covariance("louis").se["sigma"]
    interval = hx.profile(fit, "sigma")
    np.testing.assert_allclose(interval.high - interval.low, 2 * 1.96 * se, rtol=0.2)
    assert interval.curve["rise of -2 log L"].min() > -1e-6


def test_strata(theo_fit):
    with pytest.raises(ValueError, match="'WT' has 11 values for 12 subjects"):
        hx.bootstrap(theo_fit, 3, strata="WT")
    with pytest.raises(ValueError, match="strata='sex' must name a covariate"):
        hx.bootstrap(theo_fit, 3, strata="sex")


def test_strata_are_kept():
    """Subjects are drawn within their group: every resample has as many of each as the data have."""
    from hierax.analyse.bootstrap import _groups, _resample

    subjects = [hx.Subject(i, None, [0.0, 1.0], {"dv": [1.0, 2.0]}, {"sex": float(i % 3 == 0)}) for i in range(12)]
    pop = hx.Population.from_subjects(subjects)
    groups = _groups(pop, "sex")
    assert [len(group) for group in groups] == [8, 4]
    draw = _resample(types.SimpleNamespace(pop=pop), groups, 0)
    for k in range(3):
        assert np.sum(np.asarray(draw(k).covariates["sex"])[:12]) == 4


def test_bca_of_a_mean_is_what_its_formula_says():
    """Replicates with known bias and acceleration: the shares by hand, and percentiles where both are 0."""
    values = np.arange(1000.0)
    original = pd.Series({"a": 399.5, "b": 499.5})
    table = pd.DataFrame({"a": values, "b": values})
    found = Bootstrap(table, pd.Series(dtype=object), original, pd.Series({"a": 0.1, "b": 0.0}))
    ends = found.interval(0.9)
    np.testing.assert_allclose(ends.loc["b"], found.interval(0.9, "percentile").loc["b"])
    z0, z = scipy.stats.norm.ppf(0.4), scipy.stats.norm.ppf([0.05, 0.95])
    shares = scipy.stats.norm.cdf(z0 + (z0 + z) / (1 - 0.1 * (z0 + z)))
    np.testing.assert_allclose(ends.loc["a"], np.quantile(values, shares))
    with pytest.raises(ValueError, match="interval\\(kind='bc'\\) is not known"):
        found.interval(kind="bc")
