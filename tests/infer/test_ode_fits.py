"""Fits through ODEs: the same numbers as by closed forms, one compilation, grids that follow the fit."""

import dataclasses

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import turnover
import zoo
from helpers import GRADIENT, central_difference
from indirect import design, model
from zoo import POSITIVE

import hierax as hx
from hierax.infer.marginal.session import Session
from hierax.program.parameters import layout

# The objective's error is about the solver's, times the number of data and their sensitivity: 1e-6 in the solution is
# about 1e-6 in the objective of Theophylline. Fixed points are held with a finer grid.
FINE = hx.Grid(rtol=1e-8, method="dopri8")


def oral(t, y, p):
    absorbed = p["ka"] * y["depot"]
    return {"depot": -absorbed, "central": absorbed - p["cl"] / p["v"] * y["central"]}


def theophylline(solver):
    def program(pop):
        ka = numpyro.param("ka", float(np.exp(0.45)), constraint=POSITIVE)
        cl = numpyro.param("cl", float(np.exp(1.0)), constraint=POSITIVE)
        v = numpyro.param("v", float(np.exp(3.45)), constraint=POSITIVE)
        omega = numpyro.param("omega", jnp.sqrt(jnp.array([0.6, 0.3, 0.1])), constraint=POSITIVE)
        sigma = numpyro.param("sigma", 0.7, constraint=POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, omega).to_event(1))
            p = {"ka": ka * jnp.exp(eta[..., 0]), "cl": cl * jnp.exp(eta[..., 1]), "v": v * jnp.exp(eta[..., 2])}
            y = hx.solve_ode(pop, oral, {"depot": 0.0, "central": 0.0}, p, solver=solver)
            hx.observe("dv", dist.Normal(y["central"] / p["v"], sigma), pop)

    return program


def phenobarb(solver):
    def program(pop):
        cl = numpyro.param("cl", 0.006, constraint=POSITIVE)
        v = numpyro.param("v", 1.4, constraint=POSITIVE)
        omega = numpyro.param("omega", jnp.array([0.4, 0.4]), constraint=POSITIVE)
        sigma = numpyro.param("sigma", 3.0, constraint=POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, omega).to_event(1))
            v_i = v * jnp.exp(eta[..., 1])

            def field(t, y, p):
                return {"central": -p["k"] * y["central"]}

            k = {"k": cl * jnp.exp(eta[..., 0]) / v_i}
            y = hx.solve_ode(pop, field, {"central": 0.0}, k, doses={1: "central"}, solver=solver)
            hx.observe("dv", dist.Normal(y["central"] / v_i, sigma), pop)

    return program


@pytest.fixture(scope="module")
def theophylline_fit(theo_pop):
    return hx.fit(theophylline(hx.Grid()), theo_pop, hx.FOCE(), progress=False)


def test_theophylline_by_ode_at_fixed_parameters(theo_pop):
    expected = hx.evaluate(zoo.theophylline, theo_pop, {}, hx.FOCE())
    found = hx.evaluate(theophylline(FINE), theo_pop, {}, hx.FOCE())
    np.testing.assert_allclose(found.ofv, expected.ofv, atol=1e-6, rtol=0)
    np.testing.assert_allclose(found.eta, expected.eta, atol=1e-6)


def test_theophylline_by_ode_at_its_optimum(theophylline_fit):
    """With the default grid."""
    assert theophylline_fit.result is hx.Result.converged
    np.testing.assert_allclose(theophylline_fit.ofv, 116.80341, atol=1e-4)
    assert theophylline_fit.solver_error["ode"] < 1e-6
    assert "Max relative solver error" in str(theophylline_fit.summary())
    assert theophylline_fit.timing["grid sizes"] <= 2


def test_the_error_that_a_fit_reports_is_that_of_an_independent_solver(theophylline_fit):
    """Halved steps against diffrax, at the modes: the same error, within what the judge itself is off by."""
    fit = theophylline_fit
    error = fit.judge_solver(hx.Adaptive(diffrax.Tsit5(), rtol=1e-11, atol=1e-11))["ode"]
    assert list(error.index) == fit.ids
    assert error.max() <= 1.2 * fit.solver_error["ode"] + 1e-9
    halved = fit.session.grids.judge(fit.pop, fit.params, fit.eta)["ode"].max()
    np.testing.assert_allclose(halved, error.max(), rtol=0.1)
    # The default judge, an implicit method of order 5, is good to 1e-8 at least.
    np.testing.assert_allclose(fit.judge_solver()["ode"].max(), error.max(), atol=1e-8)


@pytest.mark.slow
def test_phenobarbital_by_ode():
    pop = hx.read_nonmem(hx.datasets.load("phenobarb"))
    expected = hx.evaluate(zoo.phenobarb, pop, {}, hx.FOCE())
    np.testing.assert_allclose(hx.evaluate(phenobarb(FINE), pop, {}, hx.FOCE()).ofv, expected.ofv, atol=1e-6, rtol=0)
    fit = hx.fit(phenobarb(hx.Grid()), pop, hx.FOCE(), progress=False)
    np.testing.assert_allclose(fit.ofv, hx.fit(zoo.phenobarb, pop, hx.FOCE(), progress=False).ofv, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def responses():
    pop = design(8)
    return pop.with_dv(dv=hx.simulate(model(), pop, seed=3)["dv"].values[0])


def session_of(program, pop, estimator):
    parsed = hx.program(program, pop).program
    return Session(parsed, estimator, pop, layout(parsed))


@pytest.mark.parametrize("estimator", [hx.FOCE(), pytest.param(hx.Laplace(), marks=pytest.mark.slow)])
def test_gradients_of_the_objective_through_an_ode(responses, estimator):
    """Exact for the grid as it stands: differences with the modes found anew."""
    session = session_of(model(), responses, estimator)
    flat = session.layout.start(None) + 0.05
    gradient = np.asarray(session.evaluate(flat).gradient)
    placings = session.grids.placings
    for index in (0, 2, len(flat) - 1):
        difference = central_difference(lambda x: float(session.value(x).value.sum()), flat, index, 1e-3)
        assert abs(gradient[index] - difference) <= GRADIENT * np.abs(gradient).max()
    assert session.grids.placings == placings


def test_nothing_is_traced_again_for_other_values_or_grids(responses):
    """Other parameters, other data, a grid placed anew, another fit."""
    session = session_of(model(), responses, hx.FOCE())
    flat = session.layout.start(None)
    first = session.evaluate(flat)
    compiled = session._objective._cache_size()
    session.place(flat + 0.02, first.eta)
    session.evaluate(flat + 0.1)
    other = responses.with_dv(dv=np.where(responses.mask["dv"], 1.01 * responses.dv["dv"], np.nan))
    again = session_of(session.program.model, other, hx.FOCE())
    again.evaluate(flat)
    assert again.grids.sizes == session.grids.sizes
    assert session._objective._cache_size() == compiled


@pytest.mark.slow
def test_subjects_keep_their_grids_when_they_are_picked(responses):
    session = session_of(model(), responses, hx.FOCE())
    flat = session.layout.start(None)
    all_values = np.asarray(session.evaluate(flat).value)
    picked = session.pop[[5, 2]]
    assert picked.grids["ode"].main.time.shape[0] == picked.n_subjects
    values = hx.evaluate(session.program.model, dataclasses.replace(picked), {}, hx.FOCE()).value[: len(picked)]
    # Relative to the largest value: that of a subject is a sum of terms of this size, and may itself be near 0.
    np.testing.assert_allclose(values, all_values[[5, 2]], rtol=0, atol=1e-6 * np.abs(all_values).max())


@pytest.mark.slow
def test_a_grid_does_not_outlive_the_doses_that_it_was_placed_for(responses):
    """Doses that come later, or more room for them: another order, which no number may come from."""
    session = session_of(model(), responses, hx.FOCE())
    session.place(session.layout.start(None))

    def solved(pop):
        run = session.program.run(pop, session.program.start(), None)
        return run.messages["ode"]["value"]

    assert np.all(np.asarray(jax.jit(solved)(session.pop).code) == 0)
    events = dataclasses.replace(session.pop.events, time=session.pop.events.time + 3.3)
    moved = jax.jit(solved)(dataclasses.replace(session.pop, events=events))
    assert np.all(np.asarray(moved.code) == 5)
    assert np.isnan(moved.states["R"]).all()
    padded = session.pop.pad(n_doses=6)
    assert not padded.grids
    np.testing.assert_allclose(jax.jit(solved)(padded).states["R"], jax.jit(solved)(session.pop).states["R"], rtol=1e-4)


@pytest.mark.slow
def test_a_fit_by_ode_predicts_simulates_and_plots(responses, tmp_path):
    """Everything that follows a fit runs on it: tables, other times, simulation, VPC, curves, storage."""
    program = model()
    fit = hx.fit(
        program, responses, hx.FOCE(), progress=False, fixed=["n", "SC50", "Kin", "Smax", "Kout", "Ka", "omega"]
    )
    table = fit.table()
    assert np.isfinite(table["IPRED"]).all()
    later = responses.at_times([0.0, 3.0, 50.0])
    assert np.isfinite(hx.predict(fit, later)["PRED_dv"].values[np.asarray(later.record_mask)]).all()
    assert np.isfinite(hx.simulate(fit, n=3)["dv"].values[:, np.asarray(responses.record_mask)[: len(responses)]]).all()
    hx.report(fit, tmp_path / "report.html")
    fit.save(tmp_path / "fit.zip")
    loaded = hx.load_fit(tmp_path / "fit.zip", program, responses)
    assert loaded.solver_error == fit.solver_error
    np.testing.assert_allclose(loaded.ofv, fit.ofv, atol=1e-5)


@pytest.mark.study
def test_a_turnover_model_converges():
    """Five random effects, two endpoints: the optimum of a finer grid."""
    pop = turnover.simulated()
    fit = hx.fit(turnover.program(), pop, hx.FOCE(), progress=False)
    assert fit.result is hx.Result.converged
    assert fit.history["gradient"].iloc[-1] < 1e-3
    finer = hx.evaluate(turnover.program(FINE), pop, fit.params, hx.FOCE())
    np.testing.assert_allclose(fit.ofv, finer.ofv, atol=1e-3)


@pytest.mark.slow
def test_numpyro_runs_the_same_program(responses):
    """Plain NUTS of NumPyro, no handler of ours: the default grid, chosen at every step."""
    from numpyro.infer.util import initialize_model, potential_energy

    def bayes(pop):
        k = numpyro.sample("k", dist.LogNormal(-1.0, 0.5))
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            y = hx.solve_ode(pop, lambda t, y, p: {"c": -p["k"] * y["c"]}, {"c": 0.0}, {"k": k}, doses={1: "c"})
            hx.observe("dv", dist.Normal(y["c"], 1.0), pop)

    info = initialize_model(jax.random.key(0), bayes, model_args=(responses,))
    start = info.param_info.z
    energy = jax.jit(jax.value_and_grad(lambda z: potential_energy(bayes, (responses,), {}, z)))
    value, slope = energy(start)
    assert np.isfinite(value)
    ends = [float(energy({"k": start["k"] + side * 1e-4})[0]) for side in (-1, 1)]
    np.testing.assert_allclose(slope["k"], (ends[1] - ends[0]) / 2e-4, rtol=1e-4)
