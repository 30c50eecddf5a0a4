"""Early stopping: by subjects that a fit does not see, whatever the estimator; interrupted and resumed too."""

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from helpers import interrupt_checkpoint
from zoo import POSITIVE

import hierax as hx


def wiggly(pop):
    """A level of one's own around a curve that a network with far too many weights draws."""
    net = hx.nn.network("curve", hx.nn.MLP(width=12, activation="tanh", initial=1.0), input_shape=(1,))
    omega = numpyro.param("omega", 0.3, constraint=POSITIVE)
    sigma = numpyro.param("sigma", 0.5, constraint=POSITIVE)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        level = numpyro.sample("level", dist.Normal(0.0, omega))
        hx.observe("dv", dist.Normal(level + net(3 * pop.times[..., None])[..., 0], sigma), pop)


def subjects(count, seed):
    rng = np.random.default_rng(seed)
    out = []
    for k in range(count):
        time = np.sort(rng.uniform(-1, 1, 8))
        value = np.sin(2 * time) + rng.normal(0, 0.2) + rng.normal(0, 0.4, 8)
        out.append(hx.Subject(k + 1, times=time, observations={"dv": value}))
    return hx.Population.from_subjects(out)


@pytest.fixture(scope="module")
def train():
    return subjects(5, 0)


@pytest.fixture(scope="module")
def watched():
    return subjects(30, 1)


def likelihood(fit, pop):
    return hx.log_likelihood(fit, hx.Laplace(), pop=pop).log_likelihood


def test_a_search_ends_where_the_held_out_subjects_are_most_likely(train, watched):
    fit = hx.fit(wiggly, train, hx.FOCE(), held_out=watched, patience=5, progress=False)
    assert fit.result is hx.Result.converged
    assert fit.why == "the likelihood of the held-out subjects no longer rises"
    assert len(fit.held_out) - 1 - np.argmax(fit.held_out) == 5
    np.testing.assert_allclose(likelihood(fit, watched), fit.held_out.max(), atol=1e-6)
    np.testing.assert_allclose(hx.evaluate(wiggly, train, fit.params, hx.FOCE()).ofv, fit.ofv, atol=1e-6)
    with pytest.warns(hx.HieraxWarning, match="did not converge"):
        on = hx.fit(wiggly, train, hx.FOCE(optimiser=hx.QuasiNewton(max_iter=150)), progress=False)
    assert on.log_likelihood > fit.log_likelihood
    assert likelihood(on, watched) < likelihood(fit, watched) - 1


@pytest.mark.slow
def test_every_start_has_all_patience(train, watched):
    """The second start is looked at as often as it would be alone, not once."""
    fit = hx.fit(wiggly, train, hx.FOCE(), held_out=watched, patience=4, starts=2, progress=False)
    counts = fit.history.groupby("start").size()
    assert (counts > 4).all()
    assert len(fit.held_out) - 1 - np.argmax(fit.held_out) >= 4
    np.testing.assert_allclose(likelihood(fit, watched), fit.held_out.max(), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("vi", "block", "limit"),
    [
        (hx.VI(steps=20000, automatic=False), 100, 20000),
        (hx.SAEM(exploratory=4000, smoothing=100, automatic=False), 25, 4100),
    ],
    ids=["VI", "SAEM"],
)
def test_vi_and_saem_end_there_too_and_resume(train, watched, tmp_path, monkeypatch, vi, block, limit):
    options = dict(held_out=watched, patience=4, progress=False)
    fit = hx.fit(wiggly, train, vi, **options)
    assert fit.why == "the likelihood of the held-out subjects no longer rises"
    assert len(fit.history) == block * len(fit.held_out) < limit
    np.testing.assert_allclose(likelihood(fit, watched), fit.held_out.max(), atol=1e-6)
    file = tmp_path / "fit.npz"
    with monkeypatch.context() as patch:
        interrupt_checkpoint(patch, 3)
        with pytest.warns(hx.HieraxWarning, match="interrupted"):
            hx.fit(wiggly, train, vi, checkpoint=file, **options)
    again = hx.fit(wiggly, train, vi, checkpoint=file, **options)
    np.testing.assert_array_equal(again.flat, fit.flat)
    np.testing.assert_array_equal(again.held_out, fit.held_out)
    again.save(tmp_path / "saved.zip")
    np.testing.assert_array_equal(hx.load_fit(tmp_path / "saved.zip", wiggly, train).held_out, fit.held_out)


def test_what_early_stopping_refuses(train, watched):
    with pytest.raises(ValueError, match=r"held_out= stops VI, SAEM and maximised approximations early, not NUTS"):
        hx.fit(wiggly, train, hx.NUTS(), held_out=watched)
    with pytest.raises(ValueError, match=r"patience=0 must be a whole number of 1 or more"):
        hx.fit(wiggly, train, hx.FOCE(), held_out=watched, patience=0)
