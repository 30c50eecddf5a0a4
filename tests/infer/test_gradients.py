"""Gradients by implicit differentiation against differences with modes found anew, away from the optimum."""

import flax.linen as linen
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import zoo
from helpers import GRADIENT, central_difference
from numpyro.contrib.module import flax_module

import hierax as hx
from hierax.infer.marginal import objective
from hierax.infer.marginal.session import Session
from hierax.program.parameters import layout
from hierax.program.read import forget_programs


def session_of(model, pop, estimator):
    program = hx.program(model, pop).program
    return Session(program, estimator, pop, layout(program))


def compare(session, shift, step=1e-3):
    flat = session.layout.start(None) + np.random.default_rng(shift).uniform(-0.3, 0.3, session.layout.size)
    out = session.evaluate(flat)
    assert (np.asarray(out.code) == hx.Result.converged).all()

    def total(at):
        return float(np.asarray(session.evaluate(at, out.eta).value).sum())

    differences = [central_difference(total, flat, index, step) for index in range(flat.size)]
    gradient = np.asarray(out.gradient)
    assert np.abs(gradient - differences).max() <= GRADIENT * np.abs(gradient).max()
    return gradient


@pytest.mark.parametrize("point", [1, 2, 3])
@pytest.mark.parametrize("estimator", [hx.FOCE(), hx.FO(), hx.NaivePooled()], ids=lambda e: e.label)
def test_theophylline(theo_pop, estimator, point):
    compare(session_of(zoo.theophylline, theo_pop, estimator), point)


@pytest.mark.parametrize("point", [1, 2, 3])
@pytest.mark.parametrize(
    "estimator", [hx.Laplace(), hx.AGQ(5), hx.AGQ(3, "full"), hx.FOCE(interaction=False)], ids=lambda e: e.label
)
def test_proportional_error(estimator, point):
    """Wang's model: with a variance that follows the random effects, every term of the Hessians counts."""
    compare(session_of(zoo.wang_proportional, zoo.wang_population(), estimator), point)


@pytest.mark.slow
@pytest.mark.parametrize("point", [1, 2, 3])
@pytest.mark.parametrize("estimator", [hx.Laplace(), hx.AGQ(5)], ids=lambda e: e.label)
def test_theophylline_with_higher_derivatives(theo_pop, estimator, point):
    compare(session_of(zoo.theophylline, theo_pop, estimator), point)


def test_reverse_mode_for_networks_agrees_with_forward_mode(monkeypatch):
    pop = zoo.wang_population()

    def model(pop):
        net = flax_module("net", linen.Dense(2), input_shape=(1,))
        omega = numpyro.param("omega", 0.2, constraint=zoo.POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, omega))
            rate = jnp.exp(eta + 0.1 * net(jnp.ones((1, 1)))[..., :1])
            hx.observe("dv", dist.Normal(10 * jnp.exp(-rate * pop.times), 0.3), pop)

    forward = compare(session_of(model, pop, hx.FOCE()), 1)
    monkeypatch.setattr(objective, "FORWARD_PARAMETERS", 0)
    forget_programs()
    session = session_of(model, pop, hx.FOCE())
    backward = compare(session, 1)
    assert session.evaluate(session.layout.start(None)).scores is None
    np.testing.assert_allclose(forward, backward, rtol=1e-9, atol=1e-10)


def test_many_random_effects_switch_to_reverse_mode_inside(monkeypatch):
    from hierax.infer import blocks

    pop = zoo.wang_population()
    expected = hx.evaluate(zoo.wang_proportional, pop, {}, hx.Laplace()).value
    monkeypatch.setattr(blocks, "FORWARD_UP_TO", 0)
    forget_programs()
    found = hx.evaluate(zoo.wang_proportional, pop, {}, hx.Laplace()).value
    forget_programs()
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.slow
def test_random_lag_bioavailability_and_duration():
    """FOCE through dose parameters with random effects: arrivals and ends of infusions move with them."""
    regimen = hx.Regimen(100) + hx.Regimen(60, time=10, route=2, duration="modelled")
    regimen = regimen + hx.Regimen(40, time=30, steady=2, interval=8)
    design = hx.Population.from_grid(regimen, [2.0, 5.0, 11.5, 14.0, 20.0, 31.5, 36.0], n=4)

    def model(pop):
        theta = numpyro.param("theta", jnp.array([0.6, 0.7, 4.0, 5.0]), constraint=zoo.POSITIVE)
        omega = numpyro.param("omega", 0.1 * jnp.ones(4), constraint=zoo.POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, omega).to_event(1))
            lag, F, duration, CL = jnp.moveaxis(theta * jnp.exp(eta), -1, 0)
            conc = hx.pk.one_compartment(pop, CL=CL, V=20.0, ka=0.9, lag={1: lag}, F={1: F}, duration={2: duration})
            hx.observe("dv", dist.Normal(conc, 0.2), pop)

    data = design.with_dv(dv=hx.simulate(model, design, seed=2)["dv"].values[0])
    compare(session_of(model, data, hx.FOCE()), 1, step=2e-4)
