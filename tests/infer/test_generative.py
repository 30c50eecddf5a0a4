"""Programs as generative models: probabilistic PCA against its closed form, a variational autoencoder, embeddings."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from zoo import POSITIVE

import hierax as hx

COUNT, SIZE, LATENT = 80, 6, 2


def ppca(pop):
    """Subject n has the values W zₙ + μ + noise, one a record (Tipping & Bishop 1999)."""
    start = 0.5 * jnp.eye(SIZE)[:, :LATENT] + 0.1
    loadings = numpyro.param("loadings", start)
    mean = numpyro.param("mean", jnp.zeros(SIZE))
    sigma = numpyro.param("sigma", 1.0, constraint=POSITIVE)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([LATENT]).to_event(1))
        hx.observe("dv", dist.Normal(mean + (z @ loadings.T)[..., 0, :], sigma), pop)


def table(values):
    """Return a population whose subjects are the rows of a matrix."""
    return hx.Population.from_subjects(
        [hx.Subject(k + 1, times=np.arange(len(row)), observations={"dv": row}) for k, row in enumerate(values)]
    )


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    return rng.normal(size=(COUNT, LATENT)) @ rng.normal(size=(LATENT, SIZE)) + rng.normal(size=(COUNT, SIZE)) * 0.4 + 1


@pytest.fixture(scope="module")
def ppca_fit(values):
    return hx.fit(ppca, table(values), hx.FOCE(), progress=False)


def closed_form(values):
    """Return maximum-likelihood loadings up to rotation, σ² and the log likelihood."""
    count, size = values.shape
    spread, vectors = np.linalg.eigh(np.cov(values.T, bias=True))
    spread, vectors = spread[::-1], vectors[:, ::-1]
    noise = spread[LATENT:].mean()
    loadings = vectors[:, :LATENT] * np.sqrt(spread[:LATENT] - noise)
    covariance = loadings @ loadings.T + noise * np.eye(size)
    log_det = np.linalg.slogdet(covariance)[1]
    trace = np.trace(np.linalg.solve(covariance, np.cov(values.T, bias=True)))
    return loadings, noise, -0.5 * count * (size * np.log(2 * np.pi) + log_det + trace)


def test_ppca_is_the_closed_form_solution(ppca_fit, values):
    loadings, noise, log_likelihood = closed_form(values)
    assert ppca_fit.result is hx.Result.converged
    np.testing.assert_allclose(ppca_fit.log_likelihood, log_likelihood, atol=1e-3)
    np.testing.assert_allclose(float(ppca_fit.params["sigma"]) ** 2, noise, rtol=1e-3)
    found = np.linalg.qr(np.asarray(ppca_fit.params["loadings"]))[0]
    cosines = np.linalg.svd(found.T @ np.linalg.qr(loadings)[0], compute_uv=False)
    assert np.arccos(np.clip(cosines, -1, 1)).max() < 1e-2


def test_embeddings_are_the_posterior_means_and_predict_decodes_them(ppca_fit, values):
    loadings = np.asarray(ppca_fit.params["loadings"])
    mean, noise = np.asarray(ppca_fit.params["mean"]), float(ppca_fit.params["sigma"]) ** 2
    solve = np.linalg.solve(loadings.T @ loadings + noise * np.eye(LATENT), loadings.T)
    found = ppca_fit.embeddings()
    assert found.dims == ("subject", "eta_name")
    assert found["subject"].values.tolist() == list(range(1, COUNT + 1))
    np.testing.assert_allclose(found, (values - mean) @ solve.T, atol=1e-8)
    # Other subjects than those of the fit.
    others = np.random.default_rng(1).normal(size=(5, SIZE))
    new = ppca_fit.embeddings(table(others))
    np.testing.assert_allclose(new, (others - mean) @ solve.T, atol=1e-8)
    decoded = hx.predict(ppca_fit, table(others), random_effects=new)
    np.testing.assert_allclose(decoded["IPRED_dv"], mean + new.values @ loadings.T, atol=1e-8)
    with pytest.raises(ValueError, match=r"random_effects has shape \(2, 2\), but the population has 5 subjects"):
        hx.predict(ppca_fit, table(others), random_effects=np.zeros((2, 2)))


@pytest.mark.slow
def test_embeddings_after_saem_are_conditional_means(ppca_fit, values):
    fit = hx.fit(ppca, table(values), hx.SAEM(exploratory=20, smoothing=60), init=ppca_fit, progress=False)
    assert np.abs(fit.embeddings() - fit.eta[fit.rows]).max() < 0.3
    np.testing.assert_array_equal(fit.embeddings(), fit.moments[0][fit.rows])


def vae(pop):
    """The decoder is a network of two random effects; the encoder is the amortised guide."""
    net = hx.nn.network("decoder", hx.nn.MLP(outputs=SIZE, width=16), input_shape=(1,))
    sigma = numpyro.param("sigma", 0.5, constraint=POSITIVE)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([1]).to_event(1))
        hx.observe("dv", dist.Normal(net(z)[..., 0, :], sigma), pop)


@pytest.mark.slow
def test_a_variational_autoencoder_finds_a_curve():
    """Points along a curve of random angle: one latent number, which PCA of one dimension cannot do."""
    rng = np.random.default_rng(2)
    angle = rng.uniform(0, np.pi, 120)
    curve = np.stack([np.cos(k / 2 * angle + k) for k in range(1, SIZE + 1)], axis=1)
    data = curve + rng.normal(size=curve.shape) * 0.1
    vi = hx.VI(guide=hx.guides.Amortised(), steps=6000, automatic=False, learning_rate=0.005)
    fit = hx.fit(vae, table(data[:80]), vi, progress=False)
    assert float(fit.params["sigma"]) < 0.2
    held_out = fit.embeddings(table(data[80:]))
    decoded = hx.predict(fit, table(data[80:]), random_effects=held_out)["IPRED_dv"]
    error = np.sqrt(np.mean((decoded.values - curve[80:]) ** 2))
    spread = np.linalg.svd(data - data.mean(0), compute_uv=False)
    linear = np.sqrt((spread[1:] ** 2).sum() / data.size)
    assert error < 0.15 < linear


def cca(pop):
    """Two views of a subject share a latent number; what else they vary by is their own (Bach & Jordan 2005)."""
    whole = dist.constraints.lower_cholesky
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([1]).to_event(1))
        for view, size in (("one", 2), ("two", 3)):
            loadings = numpyro.param(f"loadings_{view}", 0.5 * jnp.ones((size, 1)))
            mean = numpyro.param(f"mean_{view}", jnp.zeros(size))
            tril = numpyro.param(f"tril_{view}", jnp.eye(size), constraint=whole)
            seen = dist.MultivariateNormal(mean + z @ loadings.T, scale_tril=tril)
            numpyro.sample(view, seen, obs=pop.data[view])


@pytest.fixture(scope="module")
def views():
    rng = np.random.default_rng(3)
    z = rng.normal(size=(COUNT, 1))
    one, two = (z @ rng.normal(size=(1, size)) + 0.7 * rng.normal(size=(COUNT, size)) for size in (2, 3))
    return one, two @ np.array([[1.0, 0.3, 0.0], [0.0, 1.0, 0.2], [0.0, 0.0, 1.0]])


def viewed(one, two):
    return table(np.zeros((len(one), 1))).with_data(one=one[:, None], two=two[:, None])


@pytest.mark.slow
def test_aligning_two_views_is_the_closed_form_solution(views):
    """At the optimum log L is that of both views apart, and −½ log(1 − ρ²) a subject for the first correlation."""
    one, two = views
    fit = hx.fit(cca, viewed(one, two), hx.FOCE(), progress=False)
    both = np.cov(np.hstack([one, two]).T, bias=True)
    own, other, across = both[:2, :2], both[2:, 2:], both[:2, 2:]
    roots = [np.linalg.cholesky(part) for part in (own, other)]
    rho = np.linalg.svd(np.linalg.solve(roots[0], across) @ np.linalg.inv(roots[1]).T, compute_uv=False)
    dets = sum(2 * np.log(np.diagonal(root)).sum() for root in roots) + np.log(1 - rho[0] ** 2)
    np.testing.assert_allclose(fit.log_likelihood, -0.5 * COUNT * (5 * (np.log(2 * np.pi) + 1) + dets), atol=1e-3)


def test_a_view_without_the_subject_plates_axis_is_named(views):
    flat = table(np.zeros((COUNT, 1))).with_data(one=views[0], two=views[1])
    with pytest.raises(hx.ModelError, match=r"A vector of each subject has the shape \(subject, 1, k\)"):
        hx.fit(cca, flat, hx.FOCE(), progress=False)
