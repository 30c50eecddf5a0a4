"""Normal distributions of random effects that depend on covariates through networks."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats

import hierax as hx

TIME = np.linspace(0, 1, 5)
DESIGN = np.stack([np.ones(5), TIME], axis=1)


def population(count, seed):
    """Levels and slopes with a mean and an SD that depend on x, and noise of SD 0.1."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, count)
    mean = np.stack([np.sin(x), 0.3 * x**2], axis=1)
    effects = mean + np.exp(0.4 * x - 1)[:, None] * rng.normal(size=(count, 2))
    values = effects @ DESIGN.T + 0.1 * rng.normal(size=(count, 5))
    return x, hx.Population.from_subjects(
        [hx.Subject(k + 1, times=TIME, observations={"dv": y}, covariates={"x": x[k]}) for k, y in enumerate(values)]
    )


def model(covariance="full", **options):
    def program(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            context = pop.covariates["x"][..., None]
            law = hx.nn.conditional_normal("law", 2, context, covariance=covariance, scale=0.5, **options)
            eta = numpyro.sample("eta", law)
            hx.observe("dv", dist.Normal(eta[..., 0] + eta[..., 1] * pop.times, 0.1), pop)

    return program


def law(program, pop, params):
    """Return mean and covariance of every subject's random effects, by the site itself."""
    message = hx.program(program, pop).program.run(pop, params, None).messages["eta"]["fn"]
    return np.asarray(message.mean)[:, 0], np.asarray(message.covariance_matrix)[:, 0]


@pytest.mark.parametrize("covariance", ["full", pytest.param("diagonal", marks=pytest.mark.slow)])
def test_foce_is_exact_for_a_linear_model(covariance):
    _, pop = population(12, 0)
    program = model(covariance)
    params = hx.program(program, pop).program.start()
    mean, spread = law(program, pop, params)
    rows = np.asarray(pop.subject_mask)
    expected = [
        scipy.stats.multivariate_normal(DESIGN @ mean[k], DESIGN @ spread[k] @ DESIGN.T + 0.01 * np.eye(5)).logpdf(y)
        for k, y in enumerate(np.asarray(pop.dv["dv"])[rows])
    ]
    found = hx.evaluate(program, pop, params, hx.FOCE())
    np.testing.assert_allclose(-found.value[rows], expected, atol=1e-9)
    assert (np.abs(spread[:, 0, 1]) > 1e-6).any() == (covariance == "full")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The fit did not converge")
def test_nonlinear_means_and_spreads_are_found():
    _, pop = population(500, 1)
    vi = hx.VI(steps=3000, automatic=False)
    start = hx.fit(model(), pop, vi, progress=False)
    fit = hx.fit(model(), pop, hx.FOCE(optimiser=hx.QuasiNewton(gtol=0.1, max_iter=200)), init=start, progress=False)
    x, new = population(200, 2)
    mean, spread = law(model(), new, fit.params)
    mean, spread = mean[:200], spread[:200]
    inside = np.abs(x) < 1.8
    assert np.sqrt(np.mean((mean[inside, 0] - np.sin(x[inside])) ** 2)) < 0.12
    sd = np.sqrt(spread[:, 0, 0])
    ratio = np.log(sd[inside]) - (0.4 * x[inside] - 1)
    # 500 subjects, and a network with about 10 degrees of freedom for the SD: 1/√(2·500/10) = 0.1 at any one x, 0.03
    # overall.
    assert abs(ratio.mean()) < 0.06
    assert np.median(np.abs(ratio)) < 0.15


def test_what_it_refuses():
    _, pop = population(4, 0)
    with pytest.raises(ValueError, match=r"covariance='banded'\) is not known"):
        hx.program(model("banded"), pop)
    with pytest.raises(ValueError, match=r"has 3 outputs, but 5 make means, log SDs and a full covariance"):
        hx.program(model(module=hx.nn.MLP(outputs=3)), pop)
    with pytest.raises(ValueError, match=r"has shape \(4,\), but"):
        hx.nn.conditional_normal("law", 2, jnp.zeros(4))
