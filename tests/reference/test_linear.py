"""Linear mixed models: the answer is exact, and FO, FOCE, Laplace and quadrature must all give it.

Reference: R lme4 1.1-31, lmer(..., REML = FALSE), as listed in the project's reference numbers.
"""

import numpy as np
import pytest
import zoo

import hierax as hx

ESTIMATORS = [hx.FO(), hx.FOCE(), hx.Laplace(), hx.AGQ(3)]
IDS = [estimator.label for estimator in ESTIMATORS]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=IDS)
def test_sleepstudy_at_the_fixed_point(sleep_pop, estimator):
    found = hx.evaluate(zoo.lines_diagonal, sleep_pop, {}, estimator)
    assert found.log_likelihood == pytest.approx(-876.17402197261, abs=1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=IDS)
def test_sleepstudy_optimum(sleep_pop, estimator):
    fit = hx.fit(zoo.lines_full, sleep_pop, estimator, progress=False)
    assert fit.log_likelihood == pytest.approx(-875.9696722316, abs=1e-5)
    np.testing.assert_allclose(fit.params["beta"], [251.40510485, 10.46728596], rtol=5e-5)
    np.testing.assert_allclose(
        fit.params["Omega"], [[565.51527104, 11.05541446], [11.05541446, 32.68219761]], rtol=1e-3
    )
    assert float(fit.params["sigma"]) ** 2 == pytest.approx(654.94103758, rel=1e-4)
    se = fit.covariance().se
    np.testing.assert_allclose(se[["beta[0]", "beta[1]"]], [6.632276, 1.502237], rtol=5e-5)


def test_sleepstudy_diagonal(sleep_pop):
    fit = hx.fit(zoo.lines_diagonal, sleep_pop, hx.FOCE(), progress=False)
    assert fit.log_likelihood == pytest.approx(-876.00162757, abs=1e-5)
    np.testing.assert_allclose(fit.params["omega"] ** 2, [584.2501267732, 33.6331400162], rtol=1e-4)
    assert float(fit.params["sigma"]) ** 2 == pytest.approx(653.1160130445, rel=1e-4)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=IDS)
def test_orthodont(estimator):
    pop = hx.read_nonmem(hx.datasets.load("orthodont"))
    optimum = {
        "beta": np.array([16.7611111111, 0.6601851852]),
        "Omega": np.array([[4.8140879, -0.2742102], [-0.2742102, 0.0461925]]),
        "sigma": np.sqrt(1.71620378573),
    }
    assert hx.evaluate(zoo.lines_full, pop, optimum, estimator).log_likelihood == pytest.approx(
        -219.60580063391, abs=1e-6
    )
    start = {"beta": [17.0, 0.6], "Omega": np.diag([4.0, 0.05]), "sigma": 1.3}
    fit = hx.fit(zoo.lines_full, pop, estimator, init=start, progress=False)
    assert fit.log_likelihood == pytest.approx(-219.60580063391, abs=1e-5)
    np.testing.assert_allclose(fit.params["beta"], optimum["beta"], rtol=5e-5)
