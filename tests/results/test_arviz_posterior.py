"""The posterior of NUTS and VI as ArviZ data: the program's names, deterministics, and a log likelihood for LOO."""

import warnings

import arviz as az
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest

import hierax as hx

N, T = 6, 4


def model(pop):
    mu = numpyro.sample("mu", dist.Normal(jnp.zeros(2), 10.0).to_event(1))
    omega = numpyro.sample("omega", dist.HalfNormal(2.0))
    numpyro.deterministic("DOUBLE", 2 * mu)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        slopes = numpyro.sample("slopes", dist.Normal(0.0, omega).expand([2]).to_event(1))
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.2))
        level = numpyro.deterministic("LEVEL", mu[0] + slopes[..., 0])
        line = numpyro.deterministic("LINE", level + (mu[1] + slopes[..., 1]) * pop.times)
        hx.observe("dv", dist.Normal(line, 0.5 * scale), pop)


@pytest.fixture(scope="module")
def pop():
    rng = np.random.default_rng(3)
    values = 5 + rng.standard_normal((N, 1)) + 0.5 * rng.standard_normal((N, T)) + np.arange(T)
    ids = [f"S{k}" for k in range(N)]
    return hx.read_nonmem(
        pd.DataFrame({"ID": np.repeat(ids, T), "TIME": np.tile(np.arange(T), N), "DV": values.ravel()})
    )


def fitted(pop, estimator):
    with warnings.catch_warnings():
        # How well a short run has mixed is not what is looked at here.
        warnings.simplefilter("ignore", hx.HieraxWarning)
        return hx.fit(model, pop, estimator, progress=False)


@pytest.fixture(scope="module")
def nuts(pop):
    return fitted(pop, hx.NUTS(chains=2, warmup=150, draws=150))


def test_sites_have_the_programs_names(nuts):
    posterior = nuts.to_arviz()["posterior"]
    assert "random_effects" not in posterior
    assert posterior["slopes"].dims == ("chain", "draw", "subject", "slopes_dim")
    assert posterior["scale"].dims == ("chain", "draw", "subject")
    assert posterior["LEVEL"].dims == ("chain", "draw", "subject")
    assert posterior["LINE"].dims == ("chain", "draw", "subject", "record")
    assert posterior["DOUBLE"].dims == ("chain", "draw", "DOUBLE_dim_0")
    assert posterior["subject"].to_numpy().tolist() == [f"S{k}" for k in range(N)]
    # Values, not working coordinates: a log-normal is positive; and what depends on them follows.
    assert (posterior["scale"] > 0).all()
    np.testing.assert_allclose(np.log(posterior["scale"]), nuts.samples.eta[:, :, nuts.rows, 2])
    mu, slopes = posterior["mu"].to_numpy(), posterior["slopes"].to_numpy()
    np.testing.assert_allclose(posterior["LEVEL"], mu[..., :1] + slopes[..., 0])
    np.testing.assert_allclose(posterior["DOUBLE"], 2 * mu)


def expected_log_density(posterior, pop):
    line, scale = posterior["LINE"].to_numpy(), 0.5 * posterior["scale"].to_numpy()[..., None]
    rows = np.flatnonzero(np.asarray(pop.subject_mask))
    values, seen = np.asarray(pop.dv["dv"])[rows], np.asarray(pop.mask["dv"])[rows]
    density = -0.5 * ((values - line) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
    return density[..., seen]


@pytest.mark.parametrize(
    "estimator", [hx.NUTS(chains=2, warmup=150, draws=150), hx.VI(population="full"), hx.MarginalNUTS(chains=2)]
)
def test_every_posterior_has_a_log_likelihood(pop, estimator):
    """VI(population="full") once had none, so that az.loo failed."""
    data = fitted(pop, estimator).to_arviz()
    posterior, density = data["posterior"], data["log_likelihood"]["dv"]
    assert density.shape == (*posterior["omega"].shape, N * T)
    np.testing.assert_allclose(density, expected_log_density(posterior, pop), rtol=1e-8)
    with warnings.catch_warnings():
        # Short chains and few data have high Pareto k.
        warnings.simplefilter("ignore")
        found = az.loo(data)
        # ArviZ 0.x and 1.x name it differently.
        assert np.isfinite(found.elpd if hasattr(found, "elpd") else found.elpd_loo)
        assert np.isfinite(az.summary(data, var_names=["mu", "slopes", "LEVEL"])["mean"]).all()
