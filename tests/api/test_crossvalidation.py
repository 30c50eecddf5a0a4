"""Cross-validation: held-out likelihoods against the exact ones, splits, executors and failures."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from zoo import POSITIVE

import hierax as hx

TIME = np.linspace(0, 2, 6)


def line(sloped, spread=0.5):
    """A level of one's own, known but for the mean; with a common slope, or without."""

    def model(pop):
        mean = numpyro.param("mean", 0.5)
        slope = numpyro.param("slope", 0.1) if sloped else 0.0
        sigma = numpyro.param("sigma", 0.3, constraint=POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, spread))
            hx.observe("dv", dist.Normal(mean + eta + slope * pop.times, sigma), pop)

    return model


@pytest.fixture(scope="module")
def pop():
    rng = np.random.default_rng(0)
    values = 1 + rng.normal(0, 0.5, (11, 1)) + 0.3 * TIME + rng.normal(0, 0.2, (11, 6))
    return hx.Population.from_subjects(
        [hx.Subject(f"s{k}", times=TIME, observations={"dv": y}) for k, y in enumerate(values)]
    )


@pytest.fixture(scope="module")
def found(pop):
    candidates = {"flat": line(False), "sloped": line(True)}
    return hx.cross_validate(candidates, pop, hx.FOCE(), folds=3, method=hx.Laplace())


def test_held_out_likelihoods_are_those_of_fits_that_have_not_seen_them(found, pop):
    assert found.folds.value_counts().tolist() == [4, 4, 3]
    out = (found.folds == 1).to_numpy()
    model = line(True)
    fit = hx.fit(model, pop[np.flatnonzero(~out)], hx.FOCE(), progress=False)
    params = {name: float(value) for name, value in fit.params.items()}
    covariance = 0.25 + params["sigma"] ** 2 * np.eye(6)
    import scipy.stats

    exact = scipy.stats.multivariate_normal(params["mean"] + params["slope"] * TIME, covariance)
    expected = exact.logpdf(np.asarray(pop.dv["dv"])[out])
    np.testing.assert_allclose(found.subjects["sloped"][out], expected, atol=1e-4)


def test_the_table_ranks_by_paired_differences(found):
    assert found.best == "sloped"
    table = found.table
    assert list(table.index) == ["sloped", "flat"]
    assert table["difference"]["sloped"] == 0
    apart = found.subjects["flat"] - found.subjects["sloped"]
    np.testing.assert_allclose(table["difference"]["flat"], apart.mean())
    np.testing.assert_allclose(table["difference_se"]["flat"], apart.std(ddof=1) / np.sqrt(11))
    assert (table["not_converged"] == 0).all()
    assert "Held-out log likelihood a subject, by Laplace" in repr(found)


@pytest.mark.slow
def test_an_executor_and_a_chain_of_estimators_give_the_same(found, pop):
    chain = hx.Candidate(line(True), [hx.FO(), hx.FOCE()])
    with ThreadPoolExecutor(2) as executor:
        again = hx.cross_validate(
            {"flat": line(False), "sloped": chain}, pop, hx.FOCE(), folds=3, method=hx.Laplace(), executor=executor
        )
    np.testing.assert_allclose(again.subjects, found.subjects, atol=1e-4)


def test_what_cross_validation_refuses(pop):
    with pytest.raises(ValueError, match=r"folds=12\) cannot split 11 subjects. Give 2 to 11"):
        hx.cross_validate({"flat": line(False)}, pop, hx.FOCE(), folds=12)
    with pytest.raises(ValueError, match=r"no candidates. Give"):
        hx.cross_validate({}, pop, hx.FOCE())
