"""A flow of random effects inside VI and SAEM: bounds below the likelihood, and optima that agree."""

import numpy as np
import pytest
import shapes

import hierax as hx

pytestmark = [pytest.mark.study, pytest.mark.filterwarnings("ignore::hierax.errors.HieraxWarning")]
SUBJECTS = 200


@pytest.fixture(scope="module")
def fits():
    """One program with a learned flow, refitted from its two-stage start by VI and by SAEM, with the same penalty."""
    train = shapes.simulated("banana", SUBJECTS, 0).pop
    learned = hx.augment(hx.fit(shapes.gaussian, train, hx.FOCE(), progress=False), folds=2)
    print("\nchosen", learned.chosen, learned.strength)
    options = {
        "init": learned.params, "fixed": learned.redundant, "priors": learned.priors, "progress": False
    }  # fmt: skip
    by = {"VI": hx.VI(learning_rate=0.005), "SAEM": hx.SAEM()}
    return learned, {name: hx.fit(learned.model, train, method, **options) for name, method in by.items()}


def penalised(fit, learned, likelihood):
    """Return what both maximise: log L less the penalty of the weights."""
    ((name, strength),) = ((name, learned.strength) for name in learned.priors)
    leaves = [np.asarray(leaf) for path, leaf in _flat(fit.params[name]) if np.ndim(leaf) == 2 and "inner" not in path]
    return likelihood - strength * sum(np.sum(leaf**2) for leaf in leaves)


def _flat(tree, path=""):
    for key, value in tree.items():
        yield from _flat(value, f"{path}/{key}") if isinstance(value, dict) else [(f"{path}/{key}", value)]


def test_bounds_are_below_the_likelihood_and_reach_it(fits):
    fit = fits[1]["VI"]
    exact = hx.log_likelihood(fit, hx.ImportanceSampling(4000, proposal="t"))
    elbo = fit.variational.bounds(fit.pop, draws=100, samples=1).sum()
    weighted = fit.variational.bounds(fit.pop, draws=4, samples=1000).sum()
    print("IS", exact.log_likelihood, exact.se, "ELBO", elbo, "IW-ELBO(1000)", weighted, flush=True)
    assert elbo <= exact.log_likelihood + 3 * exact.se
    assert abs(weighted - exact.log_likelihood) <= 3 * exact.se + 0.02 * SUBJECTS


def test_both_find_the_same_optimum(fits):
    learned, found = fits
    values = {}
    for name, fit in found.items():
        by = hx.log_likelihood(fit, hx.ImportanceSampling(4000, proposal="t"))
        values[name] = by.log_likelihood, penalised(fit, learned, by.log_likelihood)
        print(name, "IS", values[name], "SE", by.se, "seconds", fit.timing["total"], fit.result, flush=True)
    start = hx.log_likelihood(learned.fit, hx.ImportanceSampling(4000, proposal="t")).log_likelihood
    print("two stages", start, penalised(learned.fit, learned, start))
    assert abs(values["VI"][0] - values["SAEM"][0]) <= SUBJECTS / 100
