"""Intervals of what stands at the end of its range, and of matrices."""

import warnings

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import zoo
from zoo import POSITIVE

import hierax as hx
from hierax.program.parameters import layout
from hierax.program.read import read_program

CONSTRAINTS = dist.constraints


@pytest.fixture(scope="module")
def at_zero(theo_pop):
    """Theophylline's flip-flop optimum: absorption does not differ between subjects, its SD is 0."""
    start = {"ka": 0.085, "cl": 2.72, "v": 1.68, "omega": np.array([0.05, 0.17, 0.6]), "sigma": 0.71}
    fit = hx.fit(zoo.theophylline, theo_pop, hx.FOCE(), init=start, progress=False)
    assert fit.ofv == pytest.approx(110.33484, abs=1e-4)
    return fit


def refitted(fit, index, value):
    """Return the rise of OFV with one SD held at a value, all else fitted anew."""
    omega = fit.params["omega"].copy()
    omega[index] = value
    held = {"omega": np.arange(3) == index}
    init = {**fit.params, "omega": omega}
    return hx.fit(zoo.theophylline, fit.pop, hx.FOCE(), init=init, fixed=held, progress=False).ofv - fit.ofv


def test_profile_of_a_variance_at_0_ends_where_refits_say(at_zero):
    found = hx.profile(at_zero, "omega[0]")
    assert found.low == 0.0
    # χ²(1) at 95 %.
    assert refitted(at_zero, 0, found.high) == pytest.approx(3.841, abs=0.01)
    assert found.high == pytest.approx(0.148, abs=0.001)


def test_profile_of_others_goes_along_the_boundary(at_zero):
    found = hx.profile(at_zero, "omega[2]")
    for end in (found.low, found.high):
        assert refitted(at_zero, 2, end) == pytest.approx(3.841, abs=0.01)


@pytest.mark.parametrize("kind", ["hessian", "sandwich", "score"])
def test_no_covariance_pretends_to_know_a_boundary(at_zero, kind):
    summary = at_zero.summary(kind)
    row = summary.loc["omega[0]"]
    assert (row["2.5 %"], row["97.5 %"], row["note"]) == (0.0, np.inf, "at the boundary")
    assert np.isnan(row["SE"])
    assert summary["SE"].drop("omega[0]").notna().all()
    assert "hx.profile(fit, 'omega[0]')" in str(summary)


def test_profile_says_where_its_searches_failed(theo_fit, theo_pop):
    cut = hx.FOCE(optimiser=hx.QuasiNewton(max_iter=1))
    fit = hx.fit(zoo.theophylline, theo_pop, cut, init=theo_fit, progress=False)
    with pytest.warns(hx.HieraxWarning, match=r"did not converge at \d+ of \d+ values .*max_iterations"):
        found = hx.profile(fit, "omega[1]")
    assert np.isnan([found.low, found.high]).all()


def test_profile_of_a_regular_parameter_is_that_of_refits(theo_fit):
    found = hx.profile(theo_fit, "omega[1]")
    for end in (found.low, found.high):
        assert refitted(theo_fit, 1, end) == pytest.approx(3.841, abs=0.01)
    assert list(found.curve["result"].unique()) == ["converged"]


# -- matrices ---------------------------------------------------------------------------------------------------------


def lines(kind):
    """The sleep study, its covariance of intercepts and slopes written in four ways."""

    def model(pop):
        beta = numpyro.param("beta", jnp.array([250.0, 10.0]))
        sigma = numpyro.param("sigma", 25.0, constraint=POSITIVE)
        spread = jnp.array([25.0, 6.0])
        if kind == "covariance":
            start = jnp.diag(spread**2)
            fn = dist.MultivariateNormal(
                jnp.zeros(2), numpyro.param("Omega", start, constraint=CONSTRAINTS.positive_definite)
            )
        elif kind == "factor":
            factor = numpyro.param("L", jnp.diag(spread), constraint=CONSTRAINTS.lower_cholesky)
            fn = dist.MultivariateNormal(jnp.zeros(2), scale_tril=factor)
        else:
            constraint = CONSTRAINTS.corr_cholesky if kind == "factor of correlations" else CONSTRAINTS.corr_matrix
            omega = numpyro.param("omega", spread, constraint=POSITIVE)
            corr = numpyro.param("corr", jnp.eye(2), constraint=constraint)
            scaled = omega[:, None] * corr
            fn = (
                dist.MultivariateNormal(jnp.zeros(2), scale_tril=scaled)
                if kind == "factor of correlations"
                else dist.MultivariateNormal(jnp.zeros(2), scaled * omega)
            )
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", fn)
            mean = beta[0] + eta[..., 0] + (beta[1] + eta[..., 1]) * pop.times
            hx.observe("dv", dist.Normal(mean, sigma), pop)

    return model


KINDS = ["covariance", "factor", "factor of correlations", "correlations"]


@pytest.mark.parametrize("kind", KINDS)
def test_omega_is_reported_as_sds_and_correlations(sleep_pop, kind):
    """lme4: SDs 23.7806 and 5.7168, correlation .0813 (reference/numbers.md gives Ω)."""
    fit = hx.fit(lines(kind), sleep_pop, hx.FOCE(), progress=False)
    summary = fit.summary()
    text = str(summary)
    from hierax.results.tables.omega import correlation_table, spread_table

    table, pairs = spread_table(fit, fit.covariance()), correlation_table(fit, fit.covariance())
    np.testing.assert_allclose(table["SE"], [5.577, 1.187], rtol=1e-3)
    assert list(pairs.index) == ["corr(eta[1], eta[0])"]
    row = pairs.iloc[0]
    np.testing.assert_allclose(row[["estimate", "SE"]].astype(float), [0.0813, 0.3235], atol=2e-4)
    # Fisher's z: atanh(.0813) ± 1.96 · .3235 / (1 − .0813²).
    np.testing.assert_allclose(row[["2.5 %", "97.5 %"]].astype(float), [-0.5056, 0.6168], atol=5e-4)
    assert "corr(eta[1], eta[0])" in text
    assert (summary["SE"] > 0).all()
    if "corr" in kind:
        assert [name for name in summary.index if name.startswith("corr")] == ["corr[1,0]"]
        assert summary.loc["corr[1,0]", "97.5 %"] == pytest.approx(0.6168, abs=5e-4)


def test_omega_is_reported_where_the_model_multiplies_standard_normals_by_its_factor(sleep_pop):
    """The same numbers as above; the SDs of the standard normals themselves say nothing."""

    def model(pop):
        beta = numpyro.param("beta", jnp.array([250.0, 10.0]))
        factor = numpyro.param("L", jnp.diag(jnp.array([24.0, 6.0])), constraint=dist.constraints.lower_cholesky)
        sigma = numpyro.param("sigma", 25.0, constraint=POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            eta = z @ factor.T
            line = beta[0] + eta[..., 0] + (beta[1] + eta[..., 1]) * pop.times
            hx.observe("dv", dist.Normal(line, sigma), pop)

    from hierax.results.tables.omega import matrix_table

    fit = hx.fit(model, sleep_pop, hx.FOCE(), progress=False)
    table = matrix_table(fit, fit.covariance())
    assert list(table.index) == ["SD(L[0])", "SD(L[1])", "corr(L[1], L[0])"]
    np.testing.assert_allclose(table["estimate"], [23.7806, 5.7168, 0.0813], rtol=1e-3)
    np.testing.assert_allclose(table["SE"], [5.577, 1.187, 0.3235], rtol=1e-3)
    np.testing.assert_allclose(table.loc["corr(L[1], L[0])", ["2.5 %", "97.5 %"]], [-0.5056, 0.6168], atol=5e-4)
    text = str(fit.summary())
    assert "corr(L[1], L[0])" in text
    # √(exp(1) − 1) = 131 % would be the CV of a log-normal parameter with the SD of a standard normal.
    assert "131" not in text


def test_a_posterior_has_sds_and_correlations_too(sleep_pop):
    def model(pop):
        omega = numpyro.sample("omega", dist.HalfNormal(jnp.array([50.0, 20.0])).to_event(1))
        corr = numpyro.sample("corr", dist.LKJCholesky(2))
        sigma = numpyro.sample("sigma", dist.HalfNormal(50.0))
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.MultivariateNormal(0.0, scale_tril=omega[:, None] * corr))
            hx.observe("dv", dist.Normal(250 + eta[..., 0] + (10 + eta[..., 1]) * pop.times, sigma), pop)

    from hierax.results.uncertainty.posterior import spread_draws

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hx.HieraxWarning)
        fit = hx.fit(model, sleep_pop, hx.NUTS(warmup=40, draws=40, chains=2), progress=False)
    table, elements = spread_draws(fit), fit.summary()
    assert list(table.index) == ["SD(eta[0])", "SD(eta[1])", "corr(eta[1], eta[0])"]
    np.testing.assert_allclose(table["mean"], elements.loc[["omega[0]", "omega[1]", "corr[1,0]"], "mean"], rtol=1e-6)
    assert "posterior of SDs and correlations" in str(elements)


@pytest.mark.parametrize("kind", ["covariance", "factor", "factor of correlations"])
def test_entries_of_matrices_are_named_as_what_they_are(sleep_pop, kind):
    """A name tells the formula: each is checked against the matrix at a point of no symmetry."""
    program = read_program(lines(kind), sleep_pop)
    places = layout(program)
    flat = np.random.default_rng(0).normal(0, 0.3, places.size)
    values = dict(zip(places.names(), flat, strict=True))
    name = next(name for name, site in program.sites.population.items() if len(site.shape) == 2)
    value = np.asarray(places.params(flat)[name])
    if kind == "factor of correlations":
        assert np.tanh(values[f"atanh partial {name}[1,0]"]) == pytest.approx(value[1, 0])
        return
    factor, called = (np.linalg.cholesky(value), f"chol({name})") if kind == "covariance" else (value, name)
    assert values[f"{called}[1,0]"] == pytest.approx(factor[1, 0])
    assert np.exp(values[f"log {called}[1,1]"]) == pytest.approx(factor[1, 1])


@pytest.mark.parametrize(
    ("kind", "seed", "ofv"),
    [(kind, 3, 1377.1737) for kind in KINDS[:3]]
    # Closer to −1 than this factor can be computed with, the objective was lower than it ever is (1328.543).
    + [(kind, 1, 1328.5697) for kind in KINDS[1:3]],
)
def test_a_singular_covariance_is_an_optimum_at_the_boundary(sleep_pop, kind, seed, ofv):
    """Slopes that hardly differ between subjects: the correlation runs to −1, however Ω is written."""
    rng = np.random.default_rng(seed)
    frame = hx.datasets.load("sleepstudy")
    frame["DV"] = 250 + np.repeat(rng.normal(0, 12, 18), 10) + 10 * frame["TIME"] + rng.normal(0, 25, 180)
    fit = hx.fit(lines(kind), hx.read_nonmem(frame), hx.FOCE(), progress=False)
    assert fit.result is hx.Result.converged
    assert fit.ofv == pytest.approx(ofv, abs=1e-3)
    assert len(fit.covariance().boundary) == 1
    assert fit.covariance().ok
    assert np.isfinite(fit.covariance().se["beta[0]"])
