"""Fits are data, and replicates run wherever an executor runs them."""

import multiprocessing
import pickle
import warnings
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import cloudpickle
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from linear_normal import linear, linear_population

import hierax as hx
from hierax.infer.search.options import QuasiNewton

pytestmark = pytest.mark.filterwarnings("ignore:The fit did not converge", "ignore:.* bootstrap replicates did not")


@pytest.fixture(scope="module")
def pop():
    return linear_population(1.0 + np.random.default_rng(0).normal(size=(8, 3)))


def local(scale):
    def model(pop):
        mu = numpyro.param("mu", 0.5)
        sigma = numpyro.param("sigma", 1.0, constraint=dist.constraints.positive)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, scale))
            hx.observe("dv", dist.Normal(mu + eta + 0.0 * pop.times, sigma), pop)

    return model


@pytest.fixture(scope="module")
def fit(pop):
    return hx.fit(local(0.5), pop, hx.FO(), progress=False)


class Shipping(Executor):
    """An executor that is no pool of threads (Dask's, say): what it is given goes through bytes."""

    def submit(self, function, /, *args, **options):
        future = Future()
        future.set_result(cloudpickle.loads(cloudpickle.dumps(function))(*pickle.loads(pickle.dumps(args)), **options))
        return future


FITS = {
    "FO": hx.FO(),
    "MAP": hx.MAP(),
    "SAEM": hx.SAEM(exploratory=5, smoothing=5),
    "VI": hx.VI(steps=100),
    "NUTS": hx.NUTS(warmup=100, draws=100, chains=2),
}


@pytest.mark.parametrize("name", FITS)
def test_a_fit_is_data(name, pop):
    fit = hx.fit(linear, pop, FITS[name], progress=False)
    again = pickle.loads(pickle.dumps(fit))
    np.testing.assert_array_equal(again.flat, fit.flat)
    assert repr(again) == repr(fit)
    assert again.table().equals(fit.table())
    assert again.method == fit.method
    np.testing.assert_allclose(again.session.penalty(again.flat)[0], fit.session.penalty(fit.flat)[0], rtol=1e-12)
    if fit.variational is not None:
        np.testing.assert_array_equal(again.variational.encode(pop)[0], fit.variational.encode(pop)[0])
    twice = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(fit))))
    assert twice.summary().equals(fit.summary())


def test_a_fit_of_a_local_model_needs_cloudpickle(fit):
    again = cloudpickle.loads(cloudpickle.dumps(fit))
    assert again.session.value(again.flat).value == pytest.approx(fit.value)


LIMIT = 1.0


def bounded(pop):
    mu = numpyro.param("mu", 0.5)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, LIMIT))
        hx.observe("dv", dist.Normal(mu + eta + 0.0 * pop.times, 1.0), pop)


def test_a_model_that_is_another_one_where_it_is_unpickled_is_refused(pop, monkeypatch):
    packed = pickle.dumps(hx.evaluate(bounded, pop, {}, hx.FO()))
    monkeypatch.setitem(globals(), "LIMIT", 2.0)
    with pytest.raises(hx.ModelError, match="is not the one that was fitted"):
        pickle.loads(packed).table()


def test_executors_give_what_a_loop_gives(fit):
    here = hx.bootstrap(fit, 4).estimates
    assert hx.bootstrap(fit, 4, executor=Shipping()).estimates.equals(here)
    with ThreadPoolExecutor(2) as threads:
        assert hx.bootstrap(fit, 4, executor=threads).estimates.equals(here)
    parametric = hx.bootstrap(fit, 3, kind="parametric").estimates
    assert hx.bootstrap(fit, 3, kind="parametric", executor=Shipping()).estimates.equals(parametric)


def test_processes_give_what_a_loop_gives(fit, pop):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
        found = hx.bootstrap(fit, 2, executor=processes).estimates
        folds = hx.cross_validate({"local": local(0.5)}, pop, hx.FO(), folds=2, method=hx.Laplace(), executor=processes)
    np.testing.assert_allclose(found, hx.bootstrap(fit, 2).estimates, rtol=1e-10)
    expected = hx.cross_validate({"local": local(0.5)}, pop, hx.FO(), folds=2, method=hx.Laplace())
    np.testing.assert_allclose(folds.subjects, expected.subjects, rtol=1e-10)


def test_forks_are_refused(fit):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as forks:
        with pytest.raises(ValueError, match=r"a fork of a process that runs JAX hangs.*get_context\('spawn'\)"):
            hx.bootstrap(fit, 2, executor=forks)


def test_warnings_are_heard_after_a_bootstrap_in_threads(fit, pop):
    with ThreadPoolExecutor(4) as threads:
        hx.bootstrap(fit, 8, executor=threads)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        hx.fit(local(0.5), pop, hx.FO(optimiser=QuasiNewton(max_iter=1)), progress=False)
    assert any(issubclass(one.category, hx.HieraxWarning) for one in told)
