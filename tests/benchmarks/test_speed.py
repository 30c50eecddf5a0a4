"""Timings, each with the accuracy that it was reached at; run by `make bench`."""

import jax
import numpy as np
import pytest
import zoo
from memory import peak_gigabytes

import hierax as hx
from hierax.infer.marginal.session import Session
from hierax.program.parameters import layout

pytestmark = pytest.mark.benchmark


@pytest.mark.parametrize("size", [12, 120, 1200, 12000])
def test_foce_objective_and_gradient(benchmark, theo_pop, size):
    """One evaluation with warm modes, parameters moved by 2 % in between."""
    pop = theo_pop[np.tile(np.arange(12), size // 12)]
    program = hx.program(zoo.theophylline, pop).program
    session = Session(program, hx.FOCE(), pop, layout(program))
    flat = session.layout.start(None)
    state = {"eta": session.evaluate(flat).eta, "sign": 1}

    def once():
        state["sign"] = -state["sign"]
        out = jax.block_until_ready(session.evaluate(flat + 0.01 * state["sign"], state["eta"]))
        state["eta"] = out.eta
        return out

    benchmark(once)
    value = 2 * float(np.asarray(session.evaluate(flat).value).sum()) * 12 / size
    benchmark.extra_info.update(
        subjects=size,
        minus_two_ll_of_twelve=value,
        error=value - 376.165658,
        compile_seconds=session.compile_seconds,
        peak_memory_mb=1e3 * peak_gigabytes(),
    )
    assert value == pytest.approx(376.165658, abs=1e-4)


@pytest.mark.parametrize("estimator", [hx.FOCE(), hx.Laplace(), hx.AGQ(5), hx.FO()], ids=lambda e: e.label)
def test_theophylline_fit(benchmark, theo_pop, estimator):
    """A whole fit, compiled: search, modes, no covariance."""
    fit = benchmark(lambda: hx.fit(zoo.theophylline, theo_pop, estimator, progress=False))
    benchmark.extra_info.update(ofv=fit.ofv, evaluations=fit.timing["evaluations"])
