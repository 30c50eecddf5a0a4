"""Nothing is traced or compiled again when only values change."""

import copy

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import zoo
from linear_normal import linear, linear_population

import hierax as hx
from hierax.infer.search.options import QuasiNewton


def heavy_tails(pop):
    mu = numpyro.param("mu", 0.5)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, 0.5))
        hx.observe("dv", dist.StudentT(5.0, mu + eta + 0.0 * pop.times, 1.0), pop)


@pytest.fixture
def counted():
    def model(pop):
        model.calls += 1
        zoo.theophylline(pop)

    model.calls = 0
    return model


def test_other_values_ids_seeds_resamples_and_subsets(counted, theo_pop):
    estimator = hx.FOCE(optimiser=QuasiNewton(max_iter=4))

    def work(pop, seed):
        with pytest.warns(hx.HieraxWarning, match="did not converge"):
            fit = hx.fit(counted, pop, estimator, progress=False, seed=seed, starts=2, init={"ka": 1.0 + seed})
        fit.table()
        hx.simulate(fit, n=2, seed=seed)
        return fit

    work(theo_pop, 0)
    first = counted.calls
    frame = theo_pop.to_frame()
    work(hx.read_nonmem(frame.assign(DV=frame["DV"] * 1.1, WT=frame["WT"] + 1), covariates=["WT"]), 1)
    work(hx.read_nonmem(frame.assign(ID="p" + frame["ID"].astype(str)), covariates=["WT"]), 2)
    work(theo_pop[np.random.default_rng(0).integers(0, 12, 12)], 3)
    work(theo_pop[np.arange(11)], 4)
    assert counted.calls == first


def test_another_size_traces_again(counted, theo_pop):
    hx.evaluate(counted, theo_pop, {}, hx.NaivePooled())
    first = counted.calls
    hx.evaluate(counted, theo_pop[:4], {}, hx.NaivePooled())
    assert counted.calls > first


DATA = 1.0 + np.random.default_rng(0).normal(size=(8, 3))
PRIORS = {"priors": {"mu": dist.Normal(1.0, 1.0)}}
QUICK = {
    "FO": (linear, hx.FO, {}, {}),
    "FOCE": (linear, hx.FOCE, {}, {}),
    "Laplace of Student's t": (heavy_tails, hx.Laplace, {}, {}),
    "AGQ": (linear, hx.AGQ, {"n": 3}, {}),
    "NaivePooled": (linear, hx.NaivePooled, {}, {}),
    "MAP": (linear, hx.MAP, {}, {}),
    "MAP with priors": (linear, hx.MAP, {}, PRIORS),
    "JointMAP": (linear, hx.JointMAP, {}, {}),
    "SAEM": (linear, hx.SAEM, {"exploratory": 5, "smoothing": 5}, {}),
    "SAEM with priors": (linear, hx.SAEM, {"exploratory": 5, "smoothing": 5}, {**PRIORS, "use_priors": True}),
    "ImportanceEM": (linear, hx.ImportanceEM, {"exploratory": 5, "smoothing": 5, "samples": 20}, {}),
    "QRPEM": (linear, hx.QRPEM, {"exploratory": 5, "smoothing": 5, "samples": 16}, {}),
    "VI": (linear, hx.VI, {"steps": 100}, {}),
    "full VI": (linear, hx.VI, {"steps": 100, "population": "full"}, {}),
    "NUTS": (linear, hx.NUTS, {"warmup": 100, "draws": 50, "chains": 2}, {}),
    "MarginalNUTS": (linear, hx.MarginalNUTS, {"warmup": 100, "draws": 50, "chains": 2}, {}),
}


@pytest.mark.filterwarnings("ignore:The fit did not converge")
@pytest.mark.parametrize("name", QUICK)
def test_a_second_fit_of_the_same_shape_runs_the_program_never(name):
    """Other data, another seed, and estimators and priors that are equal but not the same objects."""
    body, estimator, choices, options = QUICK[name]

    def model(pop):
        model.calls += 1
        body(pop)

    model.calls = 0

    def fit(data, seed):
        own = copy.deepcopy(options) if "priors" not in options else {**options, "priors": fresh(options["priors"])}
        return hx.fit(model, linear_population(data), estimator(**choices), progress=False, seed=seed, **own)

    fit(DATA, 0)
    first = model.calls
    fit(DATA + 0.3, 1)
    assert model.calls == first


def fresh(priors):
    """Return priors of the same values that are other objects."""
    return {name: dist.Normal(prior.loc, prior.scale) for name, prior in priors.items()}


@pytest.mark.filterwarnings("ignore:.* bootstrap replicates did not converge")
def test_replicates_of_a_map_fit_run_the_program_never():
    def model(pop):
        model.calls += 1
        linear(pop)

    model.calls = 0
    fit = hx.fit(model, linear_population(DATA), hx.MAP(), progress=False)
    hx.bootstrap(fit, 2)
    first = model.calls
    hx.bootstrap(fit, 3, seed=5)
    assert model.calls == first
