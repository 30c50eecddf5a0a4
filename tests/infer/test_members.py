"""Guides behind a flow: in its values where the data say much, in its normal coordinates where they say little."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import shapes

import hierax as hx

pytestmark = pytest.mark.slow

# The first six subjects are measured well, the last six hardly at all.
NOISE = np.repeat([0.03, 3.0], 6)
BEND, WIDE = 0.9, 0.25


def bent(pop):
    """Two random effects of a banana, each seen three times with an error that depends on the subject."""
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", shapes.scaled(WIDE, shapes.Bend(BEND)))
        shift = numpyro.param("shift", 0.0)
        for k, name in enumerate(("first", "second")):
            hx.observe(name, dist.Normal(shift + eta[..., k] + 0 * pop.times, pop.covariates["noise"]), pop)


@pytest.fixture(scope="module")
def bent_pop():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(12, 2))
    v = WIDE * np.stack([x[:, 0], x[:, 1] + BEND * (x[:, 0] ** 2 - 1)], axis=1)
    y = v[:, None] + NOISE[:, None, None] * rng.normal(size=(12, 3, 2))
    return hx.Population.from_subjects(
        hx.Subject(
            k + 1,
            None,
            [0.0, 1.0, 2.0],
            {"first": y[k, :, 0], "second": y[k, :, 1]},
            covariates={"noise": NOISE[k]},
        )
        for k in range(12)
    )


@pytest.fixture(scope="module")
def fitted(bent_pop):
    vi = hx.VI(steps=1500, automatic=False)
    return hx.fit(bent, bent_pop, vi, fixed=["shift"], progress=False)


def exact(pop):
    """Log likelihood and the mean of the normal coordinates, by subject, on a grid."""
    line = np.linspace(-6, 6, 2401)
    x = np.stack(np.meshgrid(line, line, indexing="ij"))
    prior = -0.5 * np.sum(x**2, 0) - np.log(2 * np.pi)
    v = WIDE * np.stack([x[0], x[1] + BEND * (x[0] ** 2 - 1)])
    logs, means = [], []
    for k in range(12):
        density = prior.copy()
        for part, name in zip(v, ("first", "second"), strict=True):
            for y in np.asarray(pop.dv[name])[k][np.asarray(pop.mask[name])[k]]:
                density += -0.5 * ((y - part) / NOISE[k]) ** 2 - np.log(NOISE[k]) - 0.5 * np.log(2 * np.pi)
        weight = np.exp(density - density.max())
        logs.append(np.log(weight.sum() * (line[1] - line[0]) ** 2) + density.max())
        means.append((weight * x).sum((1, 2)) / weight.sum())
    return np.array(logs), np.array(means)


def test_every_subject_has_the_space_that_fits_it(fitted):
    np.testing.assert_array_equal(np.asarray(fitted.variational.state.guide.behind).any(1), NOISE < 1)


def test_the_bound_reaches_the_likelihood(fitted, bent_pop):
    """Normal posteriors of values, and of coordinates without data: nearly nothing is lost in either."""
    logs, _ = exact(bent_pop)
    lost = logs - fitted.variational.bounds(bent_pop, draws=2000).to_numpy()
    # The Monte-Carlo error of a bound that is as tight as this.
    assert lost.min() > -0.01
    assert lost.max() < 0.05


def test_moments_are_of_coordinates(fitted, bent_pop):
    _, means = exact(bent_pop)
    found = fitted.embeddings().values
    sd = np.sqrt(np.diagonal(fitted.moments[1], axis1=-2, axis2=-1))
    # 256 draws of the guide: four of their errors.
    assert np.all(np.abs(found - means) < 4 * sd / 16 + 0.01)


def test_positive_values_are_no_place_for_a_gaussian(bent_pop):
    def positive(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            bend = [shapes.Bend(BEND), dist.transforms.IndependentTransform(dist.transforms.ExpTransform(), 1)]
            own = dist.TransformedDistribution(dist.Normal(jnp.zeros(2), 1.0).to_event(1), bend)
            eta = numpyro.sample("eta", own)
            shift = numpyro.param("shift", 0.0)
            hx.observe("first", dist.Normal(shift + eta[..., 0] + 0 * pop.times, 1.0), pop)

    fit = hx.fit(positive, bent_pop, hx.VI(steps=100), fixed=["shift"], progress=False)
    assert fit.variational.state.guide.behind is None
    assert np.isfinite(fit.variational.elbo[0])
