"""Ctrl-C at any moment of a fit gives a Fit of what is known, or leaves a checkpoint that gives the whole one."""

import numpy as np
import pytest
from linear_normal import linear, linear_population

import hierax as hx
from hierax.infer.fitting import job as job_module
from hierax.infer.fitting import outcome
from hierax.infer.fitting.progress import Progress
from hierax.infer.marginal import session as session_module
from hierax.infer.marginal.session import Session
from hierax.infer.search.options import QuasiNewton

pytestmark = pytest.mark.filterwarnings("ignore:The fit did not converge")


@pytest.fixture(scope="module")
def pop():
    return linear_population(1.0 + np.random.default_rng(0).normal(size=(8, 3)))


class Keyboard:
    """Presses Ctrl-C once, before the n-th of the moments of a fit."""

    def __init__(self, patch, after):
        self.left, self.pressed, self.moments = after, False, []
        places = [
            (Session, ("evaluate", "value", "penalty", "confirm", "search")),
            (Progress, ("begin", "show", "tell")),
            (outcome, ("count_observations",)),
            (session_module, ("compiled_objective",)),
            (job_module, ("maximise",)),
        ]
        for place, names in places:
            for name in names:
                self.watch(patch, place, name)

    def watch(self, patch, place, name):
        whole = getattr(place, name)

        def watched(*args, **options):
            self.moments.append(name)
            self.left -= 1
            if self.left < 0 and not self.pressed:
                self.pressed = True
                raise KeyboardInterrupt
            return whole(*args, **options)

        patch.setattr(place, name, watched)


ESTIMATORS = {
    "FOCE": hx.FOCE(optimiser=QuasiNewton(max_iter=3)),
    "SAEM": hx.SAEM(exploratory=5, smoothing=5),
    "VI": hx.VI(steps=100),
    "MAP": hx.MAP(),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_moment_gives_a_fit(name, pop):
    estimator = ESTIMATORS[name]

    def run(after):
        with pytest.MonkeyPatch.context() as patch:
            keys = Keyboard(patch, after)
            return hx.fit(linear, pop, estimator, progress=False), keys

    whole, keys = run(10**6)
    count = len(keys.moments)
    start = hx.program(linear, pop).start
    moved = 0
    for after in sorted({0, 1, 2, count // 2, *range(max(count - 8, 0), count)}):
        fit, keys = run(after)
        assert keys.pressed, after
        assert fit.result is hx.Result.interrupted, (after, keys.moments[: after + 1])
        assert np.isfinite(fit.flat).all()
        assert fit.eta.shape == whole.eta.shape
        repr(fit)
        moved += any(not np.allclose(fit.params[site], start[site]) for site in start)
    assert moved
    assert np.array_equal(fit.flat, whole.flat), "the last moments cost none of the search"


def test_a_fit_that_was_interrupted_while_it_was_finished_resumes(pop, tmp_path):
    estimator = ESTIMATORS["FOCE"]
    whole = hx.fit(linear, pop, estimator, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "confirm", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        part = hx.fit(linear, pop, estimator, progress=False, checkpoint=tmp_path / "fit.ckpt")
    assert part.result is hx.Result.interrupted
    assert np.array_equal(part.flat, whole.flat)
    resumed = hx.fit(linear, pop, estimator, progress=False, checkpoint=tmp_path / "fit.ckpt")
    assert resumed.result is whole.result
    assert np.array_equal(resumed.flat, whole.flat)
    assert resumed.ofv == whole.ofv


@pytest.mark.filterwarnings("ignore:The program's")
def test_chains_in_their_warm_up_show_where_they_start(pop):
    for after in (0, 1):
        with pytest.MonkeyPatch.context() as patch:
            Keyboard(patch, after)
            fit = hx.fit(linear, pop, hx.NUTS(warmup=200, draws=100, chains=2), progress=False)
        assert fit.result is hx.Result.interrupted
        assert "the start values" in fit.why
        assert fit.samples is None
        assert str(fit.summary()).startswith("NOT CONVERGED (interrupted)")
