"""Likelihoods without a maximum, and parameters that no likelihood contains: every estimator says so by name."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from zoo import POSITIVE, wang_additive, wang_population

import hierax as hx

SAEM = hx.SAEM(exploratory=80, smoothing=60)
IMPORTANCE_EM = hx.ImportanceEM(samples=30)
# One of each kind of algorithm among the fast tests: searches, EM, and VI.
QUICK = [hx.FOCE(), SAEM, hx.VI()]
EVERY = [*QUICK, *(pytest.param(one, marks=pytest.mark.slow) for one in (hx.Laplace(), hx.AGQ(3), IMPORTANCE_EM))]


def name_of(estimator):
    return type(estimator).__name__


def level(pop):
    """A mean with a random effect and noise."""
    mu = numpyro.param("mu", 1.0)
    omega, sigma = (numpyro.param(name, 0.5, constraint=POSITIVE) for name in ("omega", "sigma"))
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, omega))
        hx.observe("dv", dist.Normal(mu + eta + 0 * pop.times, sigma), pop)


def decay(pop):
    """An exponential decline from 10 whose rate differs between subjects."""
    rate = numpyro.param("rate", 0.5, constraint=POSITIVE)
    omega, sigma = (numpyro.param(name, 0.3, constraint=POSITIVE) for name in ("omega", "sigma"))
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, omega))
        hx.observe("dv", dist.Normal(10 * jnp.exp(-rate * jnp.exp(eta) * pop.times), sigma), pop)


def population(rows, times):
    return hx.Population.from_subjects(
        [hx.Subject(number, None, times, {"dv": list(row)}) for number, row in enumerate(rows)]
    )


def without_noise():
    eta = np.random.default_rng(0).normal(0, 0.2, (12, 1))
    times = np.array([0.5, 1.0, 2.0, 4.0])
    return population(10 * np.exp(-0.4 * np.exp(eta) * times), list(times))


CASES = {
    "one observation": (level, population([[2.3]], [0.0])),
    "six subjects alike": (level, population(np.full((6, 3), 2.0), [0.0, 1.0, 2.0])),
    "no noise": (decay, without_noise()),
}


@pytest.mark.parametrize(
    "case", ["one observation", "six subjects alike", pytest.param("no noise", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("estimator", EVERY, ids=name_of)
def test_data_that_are_fitted_exactly_have_no_estimate(case, estimator):
    model, pop = CASES[case]
    with pytest.warns(hx.HieraxWarning, match=r"degenerate.*without bound as a scale goes to 0: .*(omega|sigma)"):
        fit = hx.fit(model, pop, estimator, progress=False)
    assert fit.result is hx.Result.degenerate


def test_pooled_data_too():
    with pytest.warns(hx.HieraxWarning, match=r"degenerate.*without bound as a scale goes to 0: .*sigma"):
        fit = hx.fit(level, CASES["one observation"][1], hx.NaivePooled(), progress=False)
    assert fit.params["mu"] == pytest.approx(2.3, abs=1e-6)


@pytest.mark.parametrize("estimator", [hx.FOCE(), IMPORTANCE_EM], ids=name_of)
def test_three_observations_of_a_subject_are_not_fitted_exactly(estimator):
    """The estimate is at ω = 0: the SD of the data, 0.4899."""
    pop = population([[2.3, 2.9, 1.7]], [0.0, 1.0, 2.0])
    fit = hx.fit(level, pop, estimator, progress=False)
    assert fit.params["sigma"] == pytest.approx(np.std([2.3, 2.9, 1.7]), abs=5e-3)


# -- what the likelihood does not contain -----------------------------------------------------------------------------


def with_a_stranger(pop):
    """Wang's model and a parameter that it does not use."""
    z = numpyro.param("z", 1.0)
    wang_additive(pop)
    return 0 * z


@pytest.mark.parametrize("estimator", [*EVERY, hx.FO(), hx.NaivePooled()], ids=name_of)
def test_a_parameter_that_the_model_does_not_use(estimator):
    with pytest.warns(hx.HieraxWarning, match=r"did_not_move.*\bz\b"):
        fit = hx.fit(with_a_stranger, wang_population(), estimator, progress=False)
    assert fit.result is hx.Result.did_not_move
    assert fit.params["z"] == 1.0


def test_all_other_parameters_are_estimated_all_the_same():
    with pytest.warns(hx.HieraxWarning, match="the likelihood does not contain z"):
        fit = hx.fit(with_a_stranger, wang_population(), hx.FOCE(), progress=False)
    assert fit.ofv == pytest.approx(-4.2422, abs=1e-3)


def with_an_idle_effect(pop):
    """Two random effects, of which the data depend on the first."""
    rate = numpyro.param("rate", 0.5, constraint=POSITIVE)
    omega = numpyro.param("omega", jnp.array([0.2, 0.3]), constraint=POSITIVE)
    sigma = numpyro.param("sigma", 0.3, constraint=POSITIVE)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, omega).to_event(1))
        hx.observe("dv", dist.Normal(10 * jnp.exp(-rate * jnp.exp(eta[..., 0]) * pop.times), sigma), pop)


@pytest.mark.parametrize("estimator", EVERY, ids=name_of)
def test_a_random_effect_that_no_data_depend_on(estimator):
    with pytest.warns(hx.HieraxWarning, match=r"did_not_move.*(omega|eta)\[1\]"):
        fit = hx.fit(with_an_idle_effect, wang_population(), estimator, progress=False)
    assert fit.result is hx.Result.did_not_move
