"""nlme's classical fits (R nlme 3.1-162, lme4 1.1-31), by FOCE."""

import numpy as np
import pytest
import zoo

import hierax as hx


def test_orange_where_the_random_effect_is_linear_so_foce_is_exact():
    fit = hx.fit(zoo.orange, hx.read_nonmem(hx.datasets.load("orange")), hx.FOCE(), progress=False)
    assert fit.log_likelihood == pytest.approx(-131.571885, abs=1e-4)
    estimates = [fit.params[name] for name in ("Asym", "xmid", "scal", "omega", "sigma")]
    np.testing.assert_allclose(estimates, [192.0528, 727.9045, 348.0721, 31.6463, 7.8430], rtol=2e-5)


def test_phenobarb_with_many_doses():
    fit = hx.fit(zoo.phenobarb, hx.read_nonmem(hx.datasets.load("phenobarb")), hx.FOCE(), progress=False)
    assert fit.log_likelihood == pytest.approx(-505.2362, abs=2e-3)
    assert np.log(fit.params["cl"]) == pytest.approx(-5.1338, abs=1e-4)
    assert np.log(fit.params["v"]) == pytest.approx(0.3659, abs=1e-4)
    np.testing.assert_allclose(fit.params["omega"], [0.4448, 0.4487], atol=1e-4)
    assert float(fit.params["sigma"]) == pytest.approx(2.7956, abs=1e-4)


def test_indometh_and_what_its_difference_to_nlme_is():
    """nlme's estimates are no optimum of the likelihood, though its value there is right.

    nlme prints logLik 54.59277 at its estimates. There FOCE gives 54.5927 (the Lindstrom-Bates approximation freezes
    the linearisation between its alternating steps: 1e-4) and quadrature 54.7058. But that point is not stationary:
    from it the likelihood rises to 56.1148, where the SD of lrc1 has gone to zero; quadrature confirms that value, so
    it is no artefact of the approximation.
    """
    pop = hx.read_nonmem(hx.datasets.load("indometh"))
    nlme = {
        "A1": 2.82760,
        "lrc1": 0.77329,
        "A2": 0.46106,
        "lrc2": -1.34492,
        "omega": np.array([0.57136, 0.15812, 0.11153]),
        "sigma": 0.08150,
    }
    assert hx.evaluate(zoo.indometh, pop, nlme, hx.FOCE()).log_likelihood == pytest.approx(54.59277, abs=5e-4)
    assert hx.evaluate(zoo.indometh, pop, nlme, hx.AGQ(15)).log_likelihood == pytest.approx(54.70575, abs=1e-4)
    fit = hx.fit(zoo.indometh, pop, hx.FOCE(), init=nlme, progress=False)
    assert fit.log_likelihood == pytest.approx(56.11475, abs=1e-4)
    assert fit.params["omega"][1] < 1e-3
    assert fit.summary().loc["omega[1]", "note"] == "at the boundary"
    exact = hx.evaluate(zoo.indometh, pop, fit.params, hx.AGQ(9)).log_likelihood
    assert exact == pytest.approx(fit.log_likelihood, abs=1e-4)
