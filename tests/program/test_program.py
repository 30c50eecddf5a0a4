"""Densities of parsed programs against the same densities written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import zoo
from helpers import EXACT
from scipy import stats

import hierax as hx


def test_log_density_by_subject(theo_pop):
    program = hx.program(zoo.theophylline, theo_pop)
    eta = np.random.default_rng(0).normal(0, 0.3, (12, 3))
    params = program.start
    found = jax.jit(program.log_density)(params, eta)
    ka, cl, v = (float(params[name]) for name in ("ka", "cl", "v"))
    for i in range(12):
        dose = theo_pop.events.amount[i, 0]
        rates = ka * np.exp(eta[i, 0]), cl * np.exp(eta[i, 1]), v * np.exp(eta[i, 2])
        k = rates[1] / rates[2]
        t = theo_pop.times[i, 1:]
        f = dose * rates[0] / rates[2] / (rates[0] - k) * (np.exp(-k * t) - np.exp(-rates[0] * t))
        expected = stats.norm.logpdf(theo_pop.dv["dv"][i, 1:], f, 0.7).sum()
        expected += stats.norm.logpdf(eta[i], 0, np.sqrt([0.6, 0.3, 0.1])).sum()
        assert found[i] == pytest.approx(expected, rel=EXACT)


def test_constrain_and_unconstrain_are_inverse(sleep_pop):
    program = hx.program(zoo.lines_full, sleep_pop)
    there = program.unconstrain(program.start)
    back = program.constrain(there)
    for name, value in program.start.items():
        np.testing.assert_allclose(back[name], value, rtol=EXACT, atol=EXACT)
    assert there["sigma"] == pytest.approx(np.log(np.sqrt(650.0)))


def test_start_values_are_own_value_or_prior_median(theo_pop):
    def model(pop):
        a = numpyro.sample("a", dist.LogNormal(jnp.log(3.0), 1.0))
        b = numpyro.param("b", 2.0)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
            hx.observe("dv", dist.Normal(a + b + eta + 0 * pop.times, 1.0), pop)

    start = hx.program(model, theo_pop).start
    assert float(start["a"]) == pytest.approx(3.0)
    assert float(start["b"]) == 2.0


COORDINATES = {
    "normal": (lambda: dist.Normal(0.3, 0.5), lambda z: z, lambda z: stats.norm.logpdf(z, 0.3, 0.5)),
    "lognormal": (lambda: dist.LogNormal(0.3, 0.5), np.exp, lambda z: stats.norm.logpdf(z, 0.3, 0.5)),
    "gamma": (
        lambda: dist.Gamma(2.0, 3.0),
        np.exp,
        lambda z: stats.gamma.logpdf(np.exp(z), 2.0, scale=1 / 3) + z,
    ),
    "beta": (
        lambda: dist.Beta(2.0, 5.0),
        lambda z: 1 / (1 + np.exp(-z)),
        lambda z: stats.beta.logpdf(1 / (1 + np.exp(-z)), 2, 5) - z - 2 * np.log1p(np.exp(-z)),
    ),
    "student": (lambda: dist.StudentT(4.0, 0.3, 0.5), lambda z: z, lambda z: stats.t.logpdf(z, 4, 0.3, 0.5)),
}


@pytest.mark.parametrize("name", COORDINATES)
def test_random_effects_of_any_support_are_worked_without_bounds(theo_pop, name):
    prior, forward, log_prob = COORDINATES[name]

    def model(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            effect = numpyro.deterministic("effect", numpyro.sample("b", prior()))
            hx.observe("dv", dist.Normal(effect + 0 * pop.times, 1.0), pop)

    program = hx.program(model, theo_pop)
    z = np.linspace(-1.5, 1.5, 12)[:, None]
    found = program.log_density({}, z)
    y, mask = theo_pop.dv["dv"], theo_pop.mask["dv"]
    data = np.where(mask, stats.norm.logpdf(y, forward(z), 1.0), 0).sum(1)
    np.testing.assert_allclose(found, data + log_prob(z[:, 0]), rtol=1e-9)


def test_multivariate_log_normal_is_worked_on_the_log_scale(theo_pop):
    tril = np.array([[0.5, 0.0], [0.2, 0.3]])

    def model(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            base = dist.MultivariateNormal(jnp.array([1.0, -1.0]), scale_tril=tril)
            b = numpyro.sample("b", dist.TransformedDistribution(base, dist.transforms.ExpTransform()))
            hx.observe("dv", dist.Normal(b[..., 0] + b[..., 1] * pop.times, 1.0), pop)

    program = hx.program(model, theo_pop)
    assert program.sites.effects["b"].label == "base space"
    assert program.effect_names == ("b[0]", "b[1]")
    z = np.random.default_rng(1).normal(size=(12, 2))
    found = program.log_density({}, z)
    line = np.exp(z[:, :1]) + np.exp(z[:, 1:]) * theo_pop.times
    data = np.where(theo_pop.mask["dv"], stats.norm.logpdf(theo_pop.dv["dv"], line, 1.0), 0).sum(1)
    prior = stats.multivariate_normal.logpdf(z, [1.0, -1.0], tril @ tril.T)
    np.testing.assert_allclose(found, data + prior, rtol=EXACT)


def test_a_subject_plate_on_another_dim(theo_pop):
    """The engine takes the plate on any dim: here the last, with the records as event axes."""

    def model(pop):
        omega = numpyro.param("omega", jnp.array([2.0, 0.3]), constraint=zoo.POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-1):
            eta = numpyro.sample("eta", dist.Normal(0.0, omega).to_event(1))
            line = 5 + eta[:, :1] + eta[:, 1:] * pop.times
            normal = dist.Normal(line, 1.0).mask(pop.mask["dv"]).to_event(1)
            numpyro.sample("y", normal, obs=pop.dv["dv"])

    def usual(pop):
        omega = numpyro.param("omega", jnp.array([2.0, 0.3]), constraint=zoo.POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, omega).to_event(1))
            hx.observe("dv", dist.Normal(5 + eta[..., 0] + eta[..., 1] * pop.times, 1.0), pop)

    for estimator in (hx.FOCE(), hx.Laplace(), hx.FO()):
        one = hx.evaluate(model, theo_pop, {}, estimator)
        other = hx.evaluate(usual, theo_pop, {}, estimator)
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-8)
        assert one.n_gaussian == other.n_gaussian == 132


def test_the_programs_own_scale_and_mask_handlers_count(theo_pop):
    def model(weight):
        def scaled(pop):
            with numpyro.plate("subject", pop.n_subjects, dim=-2):
                eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
                with numpyro.handlers.scale(scale=weight):
                    hx.observe("dv", dist.Normal(5 + eta + 0 * pop.times, 1.0), pop)

        return scaled

    # Half the weight on the data of a Gaussian is twice its variance, up to the constant.
    half = hx.evaluate(model(0.5), theo_pop, {}, hx.FOCE())
    laplace = hx.evaluate(model(0.5), theo_pop, {}, hx.Laplace())
    assert half.log_likelihood == pytest.approx(laplace.log_likelihood, abs=1e-9)
