"""A fit through a flow says what importance sampling makes of it, and where its approximation was exploited."""

import re
import warnings

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from linear_normal import linear_population

import hierax as hx


def behind_a_flow(pop):
    """Two modes of random effects, of three observations each that hardly tell which: a flow has much to bend."""
    flow = hx.flow("flow", 1, scale=jnp.array([0.8]), layers=2, width=4)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", flow)
        hx.observe("dv", dist.Normal(1.0 + eta[..., 0] + 0 * pop.times, 0.8), pop)


@pytest.fixture(scope="module")
def two_modes():
    rng = np.random.default_rng(0)
    eta = np.where(rng.random(25) < 0.5, -0.8, 0.8)
    return linear_population(1 + eta[:, None] + 0.8 * rng.normal(size=(25, 3)))


def exact(fit):
    """The log likelihood by 81 nodes of quadrature of the one random effect."""
    return hx.log_likelihood(fit, hx.AGQ(81)).log_likelihood


def test_a_fit_through_a_flow_ends_with_importance_sampling(two_modes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = hx.fit(behind_a_flow, two_modes, hx.FOCE(), progress=False)
    said = re.search(r"log L by importance sampling (-[\d.]+) ± ([\d.]+), by FOCE with interaction (-[\d.]+)", fit.why)
    assert said, fit.why
    found, error, approximated = map(float, said.groups())
    np.testing.assert_allclose(found, exact(fit), atol=4 * error)
    np.testing.assert_allclose(approximated, fit.log_likelihood, atol=0.01)
    # FOCE claims a gain of 4.3 nats since the start, of which less than 2.5 are there.
    assert found < approximated - 1
    assert fit.why in str(fit.summary())


@pytest.mark.slow
def test_an_exploited_approximation_is_said(two_modes):
    """From the flow that is likeliest by importance-weighted VI, Laplace climbs to where it is wrong in its favour."""
    best = hx.fit(behind_a_flow, two_modes, hx.VI(samples=32, steps=2000), progress=False)
    with pytest.warns(hx.HieraxWarning, match=r"exploits its approximation: log L by importance sampling"):
        fit = hx.fit(behind_a_flow, two_modes, hx.Laplace(), init=best.params, progress=False)
    assert "the approximation was exploited" in fit.why
    start = hx.evaluate(behind_a_flow, two_modes, best.params, hx.Laplace())
    assert fit.log_likelihood > start.log_likelihood + 0.5
    assert exact(fit) < exact(start) - 0.3
