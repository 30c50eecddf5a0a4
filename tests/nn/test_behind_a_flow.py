"""AGQ, Laplace, importance sampling and NUTS behind a trained flow, held to a dense grid of the two random effects."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from zoo import POSITIVE

import hierax as hx

SUBJECTS, TIMES, SIGMA = 8, np.array([0.0, 1.0, 2.5]), 0.3
SCALE = np.array([0.6, 0.4])
# The weights of a flow, and the residual error, are as they were trained.
FIXED = ["flow$params", "sigma"]


def lines(pop):
    """A line a subject, its intercept and slope behind a flow."""
    mu = numpyro.param("mu", 1.0)
    sigma = numpyro.param("sigma", SIGMA, constraint=POSITIVE)
    flow = hx.flow("flow", 2, scale=SCALE)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", flow)
        hx.observe("y", dist.Normal(mu + eta[..., 0] + eta[..., 1] * pop.times, sigma), pop)


@pytest.fixture(scope="module")
def population():
    blank = [hx.Subject(k + 1, times=TIMES, observations={"y": np.zeros(3)}) for k in range(SUBJECTS)]
    return hx.Population.from_subjects(blank)


@pytest.fixture(scope="module")
def trained(population):
    """Return parameters with a flow that is skewed and bent, and data of it."""
    rng, params = np.random.default_rng(0), hx.program(lines, population).program.start()
    params["flow$params"] = jax.tree.map(lambda w: w + 0.2 * rng.normal(size=w.shape), params["flow$params"])
    drawn = hx.simulate(lines, population, params=params, seed=3)
    return params, population.with_dv(y=drawn["y"].values[0])


@pytest.fixture(scope="module")
def by_grid(trained):
    """Return the function mu → log likelihood of each subject, by 401² points of the flow's normal coordinates."""
    params, pop = trained
    line = jnp.linspace(-7.0, 7.0, 401)
    z = jnp.stack(jnp.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    stack = hx.nn.Stack(2)
    eta = np.asarray(hx.NeuralTransform(stack, params["flow$params"])(z)) * SCALE
    # Far enough from normal to be of interest.
    weights = np.exp(-0.5 * np.sum(np.asarray(z) ** 2, axis=-1))
    weights = weights / weights.sum()
    middle = weights @ eta
    away = (eta[:, 0] - middle[0]) / np.sqrt(weights @ (eta[:, 0] - middle[0]) ** 2)
    assert abs(weights @ away**3) > 0.3
    prior = jnp.log(line[1] - line[0]) * 2 + dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
    data = jnp.asarray(pop.dv["y"])

    @jax.jit
    def log_likelihood(mu):
        means = mu + eta[:, :1] + eta[:, 1:] * TIMES

        def one(y):
            return jax.nn.logsumexp(prior + dist.Normal(means, SIGMA).log_prob(y).sum(-1))

        return jax.lax.map(one, data)

    return log_likelihood


@pytest.mark.slow
def test_quadrature_finds_the_likelihood(trained, by_grid):
    params, pop = trained
    exact = by_grid(params["mu"])
    few, many = (
        np.abs(hx.evaluate(lines, pop, params, hx.AGQ(n, hessian="full")).value[:SUBJECTS] + exact).max()
        for n in (1, 81)
    )
    # The integrand of the normal coordinates is smooth: nodes end at the grid's value, which is exact to 1e-10.
    assert many < 1e-6
    assert few > 0.01


@pytest.mark.slow
# Weights of one subject have a long tail, yet most draws count: the warning is right, and so is the mean.
@pytest.mark.filterwarnings("ignore:The importance weights of 1 of 8 subjects")
def test_importance_sampling_finds_the_likelihood(trained, by_grid):
    params, pop = trained
    fit = hx.fit(lines, pop, hx.Laplace(), init=params, fixed=[*FIXED, "mu"], progress=False)
    found = hx.log_likelihood(fit, hx.ImportanceSampling(4000, proposal="t"))
    assert abs(found.log_likelihood - float(by_grid(params["mu"]).sum())) < 4 * found.se
    assert found.subjects["ess"].min() > 2000


@pytest.mark.slow
def test_a_fit_by_quadrature_ends_at_the_optimum(trained, by_grid):
    params, pop = trained
    fit = hx.fit(lines, pop, hx.AGQ(15), init=params | {"mu": 0.5}, fixed=FIXED, progress=False)
    points = jnp.linspace(float(fit.params["mu"]) - 0.5, float(fit.params["mu"]) + 0.5, 201)
    values = np.array([by_grid(mu).sum() for mu in points])
    top = np.argmax(values)
    # Of a parabola through the three highest points.
    curve = np.polyfit(points[top - 1 : top + 2], values[top - 1 : top + 2], 2)
    np.testing.assert_allclose(fit.params["mu"], -curve[1] / (2 * curve[0]), atol=2e-3)


@pytest.mark.slow
def test_nuts_finds_the_posterior(trained, by_grid):
    params, pop = trained
    prior = dist.Normal(0.0, 2.0)
    fit = hx.fit(
        lines, pop, hx.NUTS(warmup=500, draws=1000), init=params, fixed=FIXED, priors={"mu": prior}, progress=False
    )
    points = np.linspace(-2.0, 4.0, 301)
    logs = np.array([by_grid(mu).sum() for mu in points]) + np.asarray(prior.log_prob(points))
    weights = np.exp(logs - logs.max())
    weights = weights / weights.sum()
    mean = weights @ points
    table = fit.summary()
    assert table.loc["mu", "r_hat"] < 1.02
    assert abs(table.loc["mu", "mean"] - mean) < 4 * table.loc["mu", "mcse"]
    np.testing.assert_allclose(table.loc["mu", "sd"], np.sqrt(weights @ (points - mean) ** 2), rtol=0.1)
