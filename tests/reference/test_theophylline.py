"""Theophylline (R Theoph): fixed-parameter values, optima, standard errors, bad starts.

References: nlmixr2 7.0.2 and converged quadrature, as listed in the project's reference numbers.
"""

import itertools

import numpy as np
import pytest
import zoo

import hierax as hx

NAMES = ["ka", "cl", "v", "omega", "sigma"]


@pytest.mark.parametrize(
    ("estimator", "minus_two_ll"),
    [(hx.FOCE(), 376.165658), (hx.Laplace(), 378.122431), (hx.AGQ(21), 377.451160), (hx.FO(), 383.856223)],
    ids=lambda value: getattr(value, "label", ""),
)
def test_at_fixed_parameters(theo_pop, estimator, minus_two_ll):
    assert -2 * hx.evaluate(zoo.theophylline, theo_pop, {}, estimator).log_likelihood == pytest.approx(
        minus_two_ll, abs=1e-4
    )


def test_fo_objective_at_fixed_parameters(theo_pop):
    assert hx.evaluate(zoo.theophylline, theo_pop, {}, hx.FO()).ofv == pytest.approx(141.256453, abs=1e-4)


def test_foce_optimum_132_rows(theo_fit):
    assert theo_fit.result is hx.Result.converged
    assert theo_fit.ofv == pytest.approx(116.80341, abs=1e-4)
    assert -2 * theo_fit.log_likelihood == pytest.approx(359.40319, abs=1e-4)
    estimates = [theo_fit.params[name] for name in ("ka", "cl", "v", "sigma")]
    np.testing.assert_allclose(estimates, [1.5902, 2.7515, 31.809, 0.69441], rtol=5e-5)
    np.testing.assert_allclose(theo_fit.params["omega"], [0.6343, 0.2629, 0.1384], atol=5e-5)


def test_standard_errors_132_rows(theo_fit):
    se = np.sqrt(np.diag(theo_fit.covariance().unconstrained.loc[["ka", "cl", "v"], ["ka", "cl", "v"]]))
    np.testing.assert_allclose(se, [0.1911, 0.08366, 0.04654], rtol=1e-2)
    assert theo_fit.covariance().se["sigma"] == pytest.approx(0.04951, rel=1e-2)


def test_exact_likelihood_at_the_foce_optimum(theo_pop, theo_fit):
    exact = hx.evaluate(zoo.theophylline, theo_pop, theo_fit.params, hx.AGQ(21))
    assert -2 * exact.log_likelihood == pytest.approx(360.7211, abs=2e-4)


def test_foce_optimum_120_rows():
    fit = hx.fit(zoo.theophylline, zoo.theophylline_population(without_zero=True), hx.FOCE(), progress=False)
    assert fit.ofv == pytest.approx(123.6433, abs=1e-4)
    np.testing.assert_allclose(
        [fit.params[name] for name in ("ka", "cl", "v", "sigma")], [1.5881, 2.7490, 31.830, 0.73604], rtol=5e-5
    )
    # The source's second SD, 0.2633, is 5.6e-5 from ours, 0.0009 of its standard error: the objective there is the
    # worse by 7e-7 only, less than the digits that the source prints of it. Both are checked, digits and order.
    np.testing.assert_allclose(fit.params["omega"], [0.6270, 0.2633, 0.1365], atol=1e-4)
    theirs = {**fit.params, "omega": np.array([fit.params["omega"][0], 0.2633, fit.params["omega"][2]])}
    excess = hx.evaluate(zoo.theophylline, fit.pop, theirs, hx.FOCE()).ofv - fit.ofv
    assert 0 < excess < 2e-6


def test_fo_optimum(theo_pop):
    fit = hx.fit(zoo.theophylline, theo_pop, hx.FO(), progress=False)
    assert -2 * fit.log_likelihood == pytest.approx(346.469, abs=1e-3)
    np.testing.assert_allclose([fit.params[name] for name in ("ka", "cl", "v")], [2.901, 2.772, 33.27], rtol=2e-4)


def test_agq_9_optimum(theo_pop, theo_fit):
    fit = hx.fit(zoo.theophylline, theo_pop, hx.AGQ(9), init=theo_fit.params, progress=False)
    assert -2 * fit.log_likelihood == pytest.approx(360.70114, abs=2e-3)


@pytest.mark.slow
def test_agq_17_optimum(theo_pop, theo_fit):
    fit = hx.fit(zoo.theophylline, theo_pop, hx.AGQ(17), init=theo_fit.params, progress=False)
    assert -2 * fit.log_likelihood == pytest.approx(360.70071, abs=2e-4)
    estimates = [fit.params[name] for name in ("ka", "cl", "v", "sigma")]
    np.testing.assert_allclose(estimates, [1.5829, 2.7502, 31.622, 0.69591], rtol=2e-4)


@pytest.mark.slow
def test_agq_9_optimum_120_rows():
    pop = zoo.theophylline_population(without_zero=True)
    fit = hx.fit(zoo.theophylline, pop, hx.AGQ(9), progress=False)
    assert -2 * fit.log_likelihood == pytest.approx(345.43518, abs=5e-4)


def shifted(shifts):
    """Return the start with its seven log parameters moved (ka, cl, v, three SDs, sigma)."""
    start = {"ka": np.exp(0.45), "cl": np.exp(1.0), "v": np.exp(3.45), "omega": np.sqrt([0.6, 0.3, 0.1]), "sigma": 0.7}
    parts = {"ka": shifts[0], "cl": shifts[1], "v": shifts[2], "omega": shifts[3:6], "sigma": shifts[6]}
    return {name: start[name] * np.exp(parts[name]) for name in NAMES}


def test_bad_starts(theo_pop):
    reached = 0
    for seed in range(20):
        init = shifted(np.random.default_rng(seed).uniform(-1, 1, 7))
        fit = hx.fit(zoo.theophylline, theo_pop, hx.FOCE(), init=init, progress=False)
        assert np.isfinite(fit.ofv)
        if abs(-2 * fit.log_likelihood - 359.4032) <= 1e-3:
            reached += 1
        else:
            assert fit.result is hx.Result.converged
    assert reached >= 18


@pytest.mark.slow
def test_corners_of_the_cube_with_eight_starts(theo_pop):
    """From every corner of the cube of bad starts, with further starts of its own (its own seed).

    Eight starts find the published optimum from each corner. A few also find the flip-flop optimum below, whose
    likelihood is higher, and return that: none returns anything worse.
    """
    reached = 0
    for seed, corner in enumerate(itertools.product([-1.0, 1.0], repeat=7)):
        init = shifted(np.array(corner))
        fit = hx.fit(zoo.theophylline, theo_pop, hx.FOCE(), init=init, starts=8, seed=seed, progress=False)
        reached += bool((np.abs(fit.starts["ofv"] - 116.8034) <= 1e-3).any())
        minus_two_ll = -2 * fit.log_likelihood
        assert abs(minus_two_ll - 359.4032) <= 1e-3 or abs(minus_two_ll - 352.935) <= 2e-3
    assert reached >= 126


def test_the_published_optimum_is_not_the_highest():
    """A second optimum, with absorption slower than elimination (flip-flop), has the higher likelihood.

    FOCE gives -2 log L 352.935 there against 359.403, and quadrature 354.462 against 360.721: the model does not tell
    the two apart by its structure, and the published one is right by what is known of theophylline. The cube of bad
    starts does not reach it, but starts further out do, and then the best objective is this one.
    """
    pop = zoo.theophylline_population()
    flip_flop = {"cl": 2.72, "ka": 0.085, "v": 1.68, "omega": np.array([0.01, 0.17, 0.6]), "sigma": 0.71}
    fit = hx.fit(zoo.theophylline, pop, hx.FOCE(), init=flip_flop, progress=False)
    assert -2 * fit.log_likelihood == pytest.approx(352.935, abs=2e-3)
    assert fit.params["ka"] < fit.params["cl"] / fit.params["v"]
    exact = hx.evaluate(zoo.theophylline, pop, fit.params, hx.AGQ(9))
    assert -2 * exact.log_likelihood == pytest.approx(354.462, abs=2e-3)
