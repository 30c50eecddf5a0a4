"""Fisher information of every family against its definition, and FOCE on data that are not Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import zoo

import hierax as hx
from hierax.program.families import find_family

CASES = {
    "Normal": (lambda t: dist.Normal(t[0], jnp.exp(t[1])), [0.4, 0.2], [0, 1]),
    "LogNormal": (lambda t: dist.LogNormal(t[0], jnp.exp(t[1])), [0.4, 0.2], [0, 1]),
    "StudentT": (lambda t: dist.StudentT(4.0, t[0], jnp.exp(t[1])), [0.4, 0.2], [0, 1]),
    "Poisson": (lambda t: dist.Poisson(jnp.exp(t[0])), [0.7], [0]),
    "Exponential": (lambda t: dist.Exponential(jnp.exp(t[0])), [0.7], [0]),
    "BernoulliLogits": (lambda t: dist.Bernoulli(logits=t[0]), [0.7], [0]),
    "BernoulliProbs": (lambda t: dist.Bernoulli(probs=jax.nn.sigmoid(t[0])), [0.7], [0]),
    "BinomialLogits": (lambda t: dist.Binomial(5, logits=t[0]), [0.7], [0]),
    "BinomialProbs": (lambda t: dist.Binomial(5, probs=jax.nn.sigmoid(t[0])), [0.7], [0]),
    "NegativeBinomial2": (lambda t: dist.NegativeBinomial2(jnp.exp(t[0]), 2.0), [0.7], [0]),
    "Gamma": (lambda t: dist.Gamma(2.0, jnp.exp(t[0])), [0.7], [0]),
    "Weibull": (lambda t: dist.Weibull(jnp.exp(t[0]), 1.7), [0.7], [0]),
    "CategoricalProbs": (
        lambda t: dist.Categorical(probs=jax.nn.softmax(jnp.stack([t[0], t[1], 0.0]))),
        [0.7, -0.2],
        [0, 1],
    ),
    "CategoricalLogits": (lambda t: dist.Categorical(logits=jnp.stack([t[0], t[1], 0.0])), [0.7, -0.2], [0, 1]),
    "MultivariateNormal": (
        lambda t: dist.MultivariateNormal(
            jnp.stack([t[0], 2 * t[0]]), jnp.array([[1.0, 0.3], [0.3, 0.8]]) * jnp.exp(t[1])
        ),
        [0.4, 0.2],
        [0, 1],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_information_is_the_covariance_of_the_score(name):
    """By Monte Carlo, with a bound of five standard errors on every entry."""
    make, point, _ = CASES[name]
    point = jnp.array(point)
    family = find_family(make(point))

    def rows(seed):
        values, tangents = jax.jvp(lambda t: family.parameters(make(t)), (point,), (seed,))
        return jnp.concatenate([jnp.ravel(part) for part in family.whiten(values, tangents)])

    whitened = jnp.stack([rows(seed) for seed in jnp.eye(len(point))])
    draws = make(point).sample(jax.random.key(0), (40_000,))
    scores = jax.vmap(lambda y: jax.grad(lambda t: make(t).log_prob(y))(point))(draws)
    products = np.einsum("sk,sl->skl", scores, scores)
    error = products.std(0) / np.sqrt(len(products))
    assert (np.abs(whitened @ whitened.T - products.mean(0)) <= 5 * error + 1e-12).all()


def test_counts_by_foce_against_quadrature():
    """Poisson counts with a log-normal rate: FOCE's Hessian is exact there (canonical link), so FOCE = Laplace."""
    rng = np.random.default_rng(0)
    rate = 4 * np.exp(rng.normal(0, 0.4, (8, 1)))
    counts = rng.poisson(rate, (8, 6)).astype(float)
    import pandas as pd

    frame = pd.DataFrame({"ID": np.repeat(range(8), 6), "TIME": np.tile(np.arange(6.0), 8), "DV": counts.ravel()})
    pop = hx.read_nonmem(frame)

    def model(pop):
        base = numpyro.param("base", 4.0, constraint=zoo.POSITIVE)
        omega = numpyro.param("omega", 0.4, constraint=zoo.POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, omega))
            hx.observe("dv", dist.Poisson(base * jnp.exp(eta) + 0 * pop.times), pop)

    foce, laplace, exact = (
        hx.evaluate(model, pop, {}, estimator).log_likelihood for estimator in (hx.FOCE(), hx.Laplace(), hx.AGQ(15))
    )
    assert foce == pytest.approx(laplace, abs=1e-9)
    assert foce == pytest.approx(exact, abs=0.02)
    assert hx.evaluate(model, pop, {}, hx.FOCE()).n_gaussian == 0


def test_censored_rows_by_laplace_and_quadrature():
    """One censored observation of a linear model: its marginal is a normal distribution function."""
    import pandas as pd
    from scipy import stats

    rows = [(1, 0.0, 1.5, 0), (1, 1.0, 0.5, 1)]
    pop = hx.read_nonmem(pd.DataFrame(rows, columns=["ID", "TIME", "DV", "CENS"]))

    def model(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 0.7))
            hx.observe("dv", dist.Normal(1.0 + eta + 0 * pop.times, 0.5), pop)

    first = stats.norm(1.0, np.hypot(0.7, 0.5))
    gain = 0.7**2 / (0.7**2 + 0.5**2)
    second = stats.norm(1.0 + gain * 0.5, np.sqrt(0.7**2 * (1 - gain) + 0.5**2))
    expected = first.logpdf(1.5) + second.logcdf(0.5)
    found = hx.evaluate(model, pop, {}, hx.AGQ(25, "full"))
    assert found.log_likelihood == pytest.approx(expected, abs=1e-8)
    assert found.n_gaussian == 1
    with pytest.raises(hx.EstimatorError, match=r"LeftCensoredDistribution.*Use Laplace"):
        hx.evaluate(model, pop, {}, hx.FOCE())
    for cens, limit, tail in ((-1, np.nan, second.logsf(0.5)), (1, 0.2, np.log(second.cdf(0.5) - second.cdf(0.2)))):
        frame = pd.DataFrame(rows, columns=["ID", "TIME", "DV", "CENS"]).assign(CENS=[0, cens], LIMIT=[np.nan, limit])
        other = hx.evaluate(model, hx.read_nonmem(frame), {}, hx.AGQ(25, "full"))
        assert other.log_likelihood == pytest.approx(first.logpdf(1.5) + tail, abs=1e-8)
