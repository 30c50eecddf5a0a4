import numpy as np
import pytest
import zoo

import hierax as hx


def test_simulated_moments_are_those_of_the_model(sleep_pop):
    """Linear model: mean and covariance of a subject's data are known; five Monte-Carlo standard errors."""
    drawn = hx.simulate(zoo.lines_diagonal, sleep_pop, n=4000, seed=1)
    values = drawn["dv"].to_numpy()[:, 0]
    times = sleep_pop.times[0]
    expected = 600 + 40 * times[:, None] * times + 650 * np.eye(10)
    error = np.sqrt(np.diag(expected) / 4000)
    assert (np.abs(values.mean(0) - (250 + 10 * times)) < 5 * error).all()
    found = np.cov(values.T)
    spread = np.sqrt((expected**2 + np.outer(np.diag(expected), np.diag(expected))) / 4000)
    assert (np.abs(found - expected) < 5 * spread).all()


def test_simulation_is_reproducible_and_labelled(theo_fit):
    one, other = hx.simulate(theo_fit, n=2, seed=3), hx.simulate(theo_fit, n=2, seed=3)
    assert one.identical(other)
    assert not np.array_equal(one["dv"], hx.simulate(theo_fit, n=2, seed=4)["dv"])
    assert one["dv"].dims == ("draw", "subject", "time")
    assert one["CL"].dims == ("draw", "subject")
    assert one["subject"].to_numpy().tolist() == list(range(1, 13))


def test_predictions_are_those_of_the_table(theo_fit):
    predicted = hx.predict(theo_fit)
    table = theo_fit.table()
    np.testing.assert_allclose(predicted["IPRED_dv"].to_numpy().ravel(), table["IPRED"], rtol=1e-12)
    np.testing.assert_allclose(predicted["PRED_dv"].to_numpy().ravel(), table["PRED"], rtol=1e-12)


def test_prediction_for_another_design(theo_fit, theo_pop):
    predicted = hx.predict(theo_fit, theo_pop[:3])
    assert predicted["PRED_dv"].shape == (3, 12)
    assert "IPRED_dv" not in predicted
    moved = hx.predict(zoo.theophylline, theo_pop, params={"cl": 5.0})
    assert (moved["PRED_dv"][:, -1] < hx.predict(zoo.theophylline, theo_pop)["PRED_dv"][:, -1]).all()


def test_requests_that_cannot_be_met(theo_pop):
    with pytest.raises(ValueError, match="need a population"):
        hx.simulate(zoo.theophylline)
    with pytest.raises(ValueError, match=r"params names \['CLR'\]"):
        hx.predict(zoo.theophylline, theo_pop, params={"CLR": 1.0})
