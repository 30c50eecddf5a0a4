"""Programs that once went wrong."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import zoo

import hierax as hx


@pytest.fixture(scope="module")
def pop():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"ID": np.repeat(range(8), 5), "TIME": np.tile(np.arange(5.0), 8), "WT": np.repeat(rng.normal(0, 1, 8), 5)}
    )
    level = np.repeat(rng.normal(0, 0.5, 8), 5)
    frame["DV"] = 5 + level - 0.5 * frame["TIME"] + rng.normal(0, 0.4, 40)
    return hx.read_nonmem(frame, covariates=["WT"])


def line(pop, eta):
    return 5 + eta - 0.5 * pop.times


def observed(pop):
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0, 0.5))
        f = line(pop, eta)
        hx.observe("dv", dist.Normal(f, 0.1 * f), pop)


def as_events(pop):
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0, 0.5))
        f = line(pop, eta)[:, None, :]
        numpyro.sample("y", dist.Normal(f, 0.1 * f).to_event(1), obs=pop.dv["dv"][:, None, :])


@pytest.mark.parametrize("estimator", [hx.FOCE(interaction=False), hx.FOCE(), hx.FO()], ids=lambda e: e.label)
def test_records_as_event_axes_give_the_same(pop, estimator):
    one, other = (hx.evaluate(model, pop, {}, estimator) for model in (observed, as_events))
    np.testing.assert_allclose(one.value, other.value, rtol=1e-10)
    assert one.n_gaussian == other.n_gaussian == 40


def test_a_transform_free_of_the_effects_is_seen_through(pop):
    def build(log_normal):
        def model(pop):
            with numpyro.plate("subject", pop.n_subjects, dim=-2):
                eta = numpyro.sample("eta", dist.Normal(0, 0.5))
                loc = jnp.log(5.0) + 0.2 * eta - 0.1 * pop.times
                transform = dist.transforms.ExpTransform()
                other = dist.TransformedDistribution(dist.Normal(loc, 0.1), transform)
                hx.observe("dv", dist.LogNormal(loc, 0.1) if log_normal else other, pop)

        return model

    for estimator in (hx.FOCE(), hx.FO(), hx.FOCE(interaction=False)):
        one, other = (hx.evaluate(build(kind), pop, {}, estimator) for kind in (True, False))
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-9)
        assert one.n_gaussian == other.n_gaussian == 40


def test_a_transform_that_follows_an_effect_is_refused(pop):
    def model(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0, 0.5))
            shift = dist.transforms.AffineTransform(eta + 0 * pop.times, 1.0)
            hx.observe("dv", dist.TransformedDistribution(dist.Normal(0 * pop.times, 1.0), shift), pop)

    with pytest.raises(hx.EstimatorError, match=r"parameter 'transform' of the data site 'dv'.*depends on random effects"):
        hx.evaluate(model, pop, {}, hx.FOCE())


def test_a_parameter_without_gradient_at_the_start_alone_is_not_held(pop):
    def model(pop):
        a = numpyro.param("a", 0.0)
        b = numpyro.param("b", 0.0)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0, 0.5))
            f = 5 + eta + b * (1 - jnp.exp(-jnp.exp(a) * pop.times))
            hx.observe("dv", dist.Normal(f, 0.5), pop)

    fit = hx.fit(model, pop, hx.FOCE(), progress=False)
    other = hx.fit(model, pop, hx.FOCE(), progress=False, init={"b": -0.3})
    assert fit.held == []
    assert fit.ofv == pytest.approx(other.ofv, abs=1e-4)


@pytest.mark.parametrize("kind", ["data", "effects"])
def test_ties_behind_a_zero_slope_are_seen(pop, kind):
    def model(pop):
        b = numpyro.param("b", 0.0)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0, 0.5))
            weight = pop.covariates["WT"]
            tie = b * (weight - weight.mean()) if kind == "data" else b * eta.mean()
            hx.observe("dv", dist.Normal(line(pop, eta) + tie, 0.5), pop)

    with pytest.raises(hx.ModelError, match="of one subject"):
        hx.program(model, pop)


@pytest.mark.parametrize(
    "estimator", [hx.FOCE(), hx.Laplace(), hx.AGQ(3), hx.FO(), hx.NaivePooled()], ids=lambda e: e.label
)
def test_no_random_effects(pop, estimator):
    def model(pop):
        mu = numpyro.param("mu", 4.0)
        sigma = numpyro.param("sigma", 1.0, constraint=zoo.POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            hx.observe("dv", dist.Normal(mu + 0 * pop.times, sigma), pop)

    fit = hx.fit(model, pop, estimator, progress=False)
    data = pop.dv["dv"]
    assert float(fit.params["mu"]) == pytest.approx(data.mean(), abs=1e-4)
    assert float(fit.params["sigma"]) == pytest.approx(data.std(), abs=1e-4)
    assert "Converged" in str(fit.summary())
    assert len(fit.table()) == 40


def test_a_trial_step_whose_scores_overflow_is_stepped_back_from(pop):
    def model(pop):
        a = numpyro.param("a", 1.0)
        b = numpyro.param("b", 0.3)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0, 0.5))
            f = 5 + b * (jnp.exp(a * pop.times / 3) - 1) + eta
            hx.observe("dv", dist.Normal(f, 0.5), pop)

    fit = hx.fit(model, pop, hx.FOCE(), progress=False)
    assert fit.result is hx.Result.converged


def test_one_subject_converges_by_its_gradient(pop):
    def model(pop):
        mu = numpyro.param("mu", 4.0)
        slope = numpyro.param("slope", 0.0)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0, 0.5))
            hx.observe("dv", dist.Normal(mu + eta + slope * pop.times, 0.5), pop)

    fit = hx.fit(model, pop[3], hx.FOCE(), progress=False)
    assert fit.result is hx.Result.converged
    assert np.abs(fit.gradient).max() < 1e-3
    assert len(fit.history) < 40
