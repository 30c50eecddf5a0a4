"""Nothing is traced or compiled again when only values change."""

import numpy as np
import pytest
import zoo

import hierax as hx
from hierax.infer.optimise import QuasiNewton


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
