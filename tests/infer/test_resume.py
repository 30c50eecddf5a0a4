"""Interrupted and resumed is bitwise the same as uninterrupted, and the same seed gives the same result."""

import numpy as np
import pytest
import zoo
from helpers import interrupt_checkpoint
from linear_normal import linear, linear_population

import hierax as hx


@pytest.fixture(scope="module")
def linear_pop():
    rng = np.random.default_rng(0)
    return linear_population(1.0 + 0.7 * rng.normal(size=(8, 1)) + 0.5 * rng.normal(size=(8, 3)))


def cases():
    """Return by name: a model, whether it is the linear one, an estimator, and after how many offers to stop."""
    theophylline = ["ImportanceEM", "Laplace", "AGQ"]
    estimators = {
        "MarginalNUTS": (hx.MarginalNUTS(warmup=100, draws=100, chains=2), 2),
        "MAP": (hx.MAP(), 2),
        "JointMAP": (hx.JointMAP(), 2),
        "ImportanceEM": (hx.ImportanceEM(samples=100), 1),
        "QRPEM": (hx.QRPEM(samples=64), 1),
        "Laplace": (hx.Laplace(), 5),
        "AGQ": (hx.AGQ(3), 5),
    }
    return [
        pytest.param(
            zoo.theophylline if name in theophylline else linear,
            estimator,
            after,
            id=name,
            marks=[pytest.mark.slow] if name in theophylline else [],
        )
        for name, (estimator, after) in estimators.items()
    ]


# So few draws may not have mixed, so few iterations not have converged; what is compared are bits.
@pytest.mark.filterwarnings(r"ignore:The fit did not converge \((not_mixed|max_iterations)\)")
@pytest.mark.parametrize(("model", "estimator", "after"), cases())
def test_a_resumed_fit_is_the_uninterrupted_one(model, estimator, after, theo_pop, linear_pop, tmp_path):
    pop = linear_pop if model is linear else theo_pop
    whole = hx.fit(model, pop, estimator, progress=False)
    file = tmp_path / "fit.ckpt"
    with pytest.MonkeyPatch.context() as patch:
        interrupt_checkpoint(patch, after)
        with pytest.warns(hx.HieraxWarning, match="interrupted"):
            part = hx.fit(model, pop, estimator, progress=False, checkpoint=file)
    assert part.result is hx.Result.interrupted
    resumed = hx.fit(model, pop, estimator, progress=False, checkpoint=file)
    assert resumed.result is whole.result
    assert np.array_equal(resumed.flat, whole.flat)
    assert np.array_equal(resumed.eta, whole.eta)
    if whole.samples is not None:
        assert np.array_equal(resumed.samples.flat, whole.samples.flat)
