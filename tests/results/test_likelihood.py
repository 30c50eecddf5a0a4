"""Marginal likelihoods by importance sampling, against quadrature."""

import numpy as np
import pytest
import zoo

import hierax as hx
from hierax.infer.pareto import pareto_k


@pytest.fixture(scope="module")
def exact(theo_fit):
    return hx.log_likelihood(theo_fit, hx.AGQ(17))


def test_quadrature_is_the_published_value(exact):
    np.testing.assert_allclose(exact.minus_two, 360.7211, atol=1e-4)
    assert exact.se == 0
    np.testing.assert_allclose(exact.ofv, exact.minus_two - 132 * np.log(2 * np.pi))


# A Gaussian has lighter tails than one subject's posterior, and its Pareto k is about 0.7.
@pytest.mark.filterwarnings("ignore:The importance weights of 1 of 12 subjects")
@pytest.mark.parametrize(
    ("options", "most"),
    [({}, 0.05), ({"proposal": "t"}, 0.1), ({"centre": "mean"}, 0.05), ({"centre": "mean", "proposal": "t"}, 0.1)],
)
def test_importance_sampling_is_quadrature(theo_fit, exact, options, most):
    """SE of −2 log L as the weights have it; three of them between the two."""
    found = hx.log_likelihood(theo_fit, hx.ImportanceSampling(10_000, **options), seed=1)
    assert 2 * found.se <= most
    assert abs(found.log_likelihood - exact.log_likelihood) <= 3 * found.se
    if options.get("proposal") == "t":
        assert (found.subjects["pareto_k"] < 0.7).all()
    assert list(found.subjects.index) == theo_fit.ids


@pytest.mark.filterwarnings("ignore:The importance weights of")
def test_the_error_is_that_of_repetitions(theo_fit):
    """SD over 30 seeds against the reported SE: within 3 of its own errors, 13 % each."""
    found = [hx.log_likelihood(theo_fit, hx.ImportanceSampling(500), seed=seed) for seed in range(30)]
    spread = np.std([one.log_likelihood for one in found], ddof=1)
    assert 0.6 < spread / np.mean([one.se for one in found]) < 1.4


def test_pareto_k_is_that_of_pareto_weights():
    """Weights u^(−k), u uniform: their tail has shape k. SE (1 + k) / sqrt(20 · 424) = 0.02, and a little bias."""
    u = np.random.default_rng(0).uniform(size=(20, 20_000))
    for k in (0.2, 0.5, 0.9):
        np.testing.assert_allclose(pareto_k(-k * np.log(u)).mean(), k, atol=0.06)


def test_a_proposal_that_does_not_reach_says_so(theo_fit):
    """Standard errors of the proposal a fifth of what they should be."""
    import dataclasses

    narrow = dataclasses.replace(theo_fit, hessian=25 * theo_fit.hessian)
    with pytest.warns(hx.HieraxWarning, match=r"Pareto k above 0.7 \(subject .*proposal='t'"):
        hx.log_likelihood(narrow, hx.ImportanceSampling(2000))


def test_slips_are_named(theo_fit):
    with pytest.raises(ValueError, match="method is 'is', but must be AGQ"):
        hx.log_likelihood(theo_fit, "is")
    with pytest.raises(ValueError, match=r"proposal='cauchy'\) is not known"):
        hx.ImportanceSampling(proposal="cauchy")
    pooled = hx.fit(zoo.theophylline, theo_fit.pop, hx.NaivePooled(), progress=False)
    assert hx.log_likelihood(pooled, hx.FO()).log_likelihood < 0
