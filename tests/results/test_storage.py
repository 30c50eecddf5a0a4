"""A saved fit comes back for the program, data and priors that it was fitted to, and can do what it could."""

import dataclasses

import numpy as np
import numpyro.distributions as dist
import optax
import pytest
import zoo
from linear_normal import linear, linear_population

import hierax as hx
from hierax.infer.search.options import QuasiNewton
from hierax.results.files.options import decode

pytestmark = pytest.mark.filterwarnings("ignore:The fit did not converge")


@pytest.fixture(scope="module")
def pop():
    return linear_population(1.0 + np.random.default_rng(0).normal(size=(8, 3)))


def saved(fit, folder):
    fit.save(folder / "fit.hierax")
    return folder / "fit.hierax"


def test_another_model_of_the_same_names_is_refused(tmp_path):
    pop = zoo.wang_population()
    path = saved(hx.fit(zoo.wang_additive, pop, hx.FO(optimiser=QuasiNewton(max_iter=2)), progress=False), tmp_path)
    with pytest.raises(ValueError, match=r"of another model \(the program or its priors differ: program"):
        hx.load_fit(path, zoo.wang_proportional, pop)
    with pytest.raises(ValueError, match=r"its data differ: .*interpolation \(None there, locf here\)"):
        hx.load_fit(path, zoo.wang_additive, dataclasses.replace(pop, interpolation="locf"))


def test_priors_come_back_with_a_map_fit_and_others_are_refused(pop, tmp_path):
    priors = {"mu": dist.Normal(1.0, 0.3)}
    fit = hx.fit(linear, pop, hx.MAP(), priors=priors, progress=False)
    path = saved(fit, tmp_path)
    again = hx.load_fit(path, linear, pop, priors=priors)
    assert again.method == fit.method
    assert sorted(again.session.priors) == sorted(fit.session.priors)
    np.testing.assert_allclose(again.covariance().se, fit.covariance().se, rtol=1e-10)
    with pytest.raises(ValueError, match=r"prior of mu \(Normal\(loc=1.0, scale=0.3\)"):
        hx.load_fit(path, linear, pop, priors={"mu": dist.Normal(1.0, 0.4)})


def test_a_saved_saem_fit_is_bootstrapped_as_the_fit_is(pop, tmp_path):
    fit = hx.fit(linear, pop, hx.SAEM(exploratory=20, smoothing=20), progress=False)
    again = hx.load_fit(saved(fit, tmp_path), linear, pop)
    assert again.method == fit.method
    assert hx.bootstrap(again, 2).estimates.equals(hx.bootstrap(fit, 2).estimates)


def test_a_saved_vi_fit_keeps_its_guide(pop, tmp_path):
    vi = hx.VI(steps=200)
    fit = hx.fit(linear, pop, vi, progress=False)
    again = hx.load_fit(saved(fit, tmp_path), linear, pop)
    for ours, theirs in zip(again.variational.encode(pop), fit.variational.encode(pop), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert again.variational.bounds(pop, draws=5).equals(fit.variational.bounds(pop, draws=5))


def test_an_optimiser_that_is_not_in_the_file_is_asked_for(pop, tmp_path):
    vi = hx.VI(steps=100, optimiser=optax.scale_by_adam(b1=0.8))
    fit = hx.fit(linear, pop, vi, progress=False)
    path = saved(fit, tmp_path)
    with pytest.warns(hx.HieraxWarning, match=r"guide of the fit .* cannot be read without its options"):
        assert hx.load_fit(path, linear, pop).variational is None
    again = hx.load_fit(path, linear, pop, estimator=vi)
    np.testing.assert_array_equal(again.variational.encode(pop)[0], fit.variational.encode(pop)[0])
    with pytest.raises(ValueError, match="is by hierax.infer.vi.vi:VI, and estimator= is SAEM"):
        hx.load_fit(path, linear, pop, estimator=hx.SAEM())


@dataclasses.dataclass(frozen=True)
class MySAEM(hx.SAEM):
    """A user's own algorithm."""

    exploratory: int = 10


@dataclasses.dataclass(frozen=True)
class MyFOCE(hx.FOCE):
    """A user's own approximation."""


@pytest.mark.parametrize("estimator", [MySAEM(smoothing=10), MyFOCE(optimiser=QuasiNewton(max_iter=2))])
def test_subclasses_of_estimators_fit_save_and_load(estimator, pop, tmp_path):
    fit = hx.fit(linear, pop, estimator, progress=False)
    again = hx.load_fit(saved(fit, tmp_path), linear, pop)
    assert type(again.method or again.estimator) is type(estimator)
    assert (again.method or again.estimator) == estimator
    np.testing.assert_array_equal(again.flat, fit.flat)


def test_a_path_that_cannot_be_written_is_refused_before_any_work(theo_fit, tmp_path):
    for write in (theo_fit.save, lambda path: hx.report(theo_fit, path)):
        with pytest.raises(ValueError, match=r"path='.*nowhere.*' cannot be written, because the folder .* not exist"):
            write(tmp_path / "nowhere" / "fit.hx")
        with pytest.raises(ValueError, match="is a folder, but a file is needed"):
            write(tmp_path)


def test_a_file_outlives_the_places_of_modules():
    """Files name the class of an estimator with the module that it was in when they were written."""
    assert decode({"class": "hierax.infer.laplace:FOCE", "fields": {"interaction": False}}) == hx.FOCE(
        interaction=False
    )
    with pytest.raises(LookupError):
        decode({"class": "hierax.infer.laplace:Nobody", "fields": {}})
