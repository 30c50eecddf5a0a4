"""Learned dynamics at five levels of prior knowledge, and reverse mode with very many weights."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flax import linen
from helpers import central_difference
from indirect import POSITIVE, TRUTH, hill, regimen
from numpyro.contrib.module import flax_module

import hierax as hx
from hierax.data.sanitise import sanitise
from hierax.infer.marginal.session import Session
from hierax.program.parameters import layout

CL, VC, KA = TRUTH["CL"], TRUTH["Vc"], TRUTH["Ka"]


class Net(linen.Module):
    outputs: int = 1
    width: int = 4

    @linen.compact
    def __call__(self, x):
        return linen.Dense(self.outputs)(linen.tanh(linen.Dense(self.width)(x)))


def kinetics(y):
    absorbed = KA * y["depot"]
    return {"depot": -absorbed, "central": absorbed - CL / VC * y["central"]}


def everything(nets, kin, kout, y):
    slope = nets["all"](jnp.stack([y["depot"] / 10, y["central"] / 10, y["R"] / 2]))
    return {"depot": 10 * slope[0] - y["depot"], "central": 10 * slope[1] - y["central"], "R": slope[2] + kin - y["R"]}


def conservation(nets, kin, kout, y):
    """What leaves the depot enters the central compartment; every flow is a network, positive and 0 at 0."""
    absorbed = y["depot"] * linen.softplus(nets["one"](y["depot"][None] / 10)[0])
    eliminated = y["central"] * linen.softplus(nets["two"](y["central"][None] / 10)[0])
    response = nets["three"](jnp.stack([y["central"] / 10, y["R"] / 2]))[0]
    return {"depot": -absorbed, "central": absorbed - eliminated, "R": response + kin - y["R"]}


def known_kinetics(nets, kin, kout, y):
    slope = nets["all"](jnp.stack([y["depot"] / 10, y["central"] / 10, y["R"] / 2]))
    return kinetics(y) | {"R": slope[0] + kin - y["R"]}


def response_of_concentration(nets, kin, kout, y):
    return kinetics(y) | {"R": nets["two"](jnp.stack([y["central"] / VC / 5, y["R"] / 2]))[0] + kin - y["R"]}


def effect_of_concentration(nets, kin, kout, y):
    effect = nets["one"](y["central"][None] / VC)[0] - nets["one"](jnp.zeros(1))[0]
    return kinetics(y) | {"R": kin * (1 + effect) - kout * y["R"]}


# The field, and the networks of each level: (name, inputs, outputs).
LEVELS = {
    "everything": (everything, [("all", 3, 3)]),
    "conservation": (conservation, [("one", 1, 1), ("two", 1, 1), ("three", 2, 1)]),
    "known kinetics": (known_kinetics, [("all", 3, 1)]),
    "response of (c, R)": (response_of_concentration, [("two", 2, 1)]),
    "effect of c": (effect_of_concentration, [("one", 1, 1)]),
}


def learned(level, width=4):
    field, shapes = LEVELS[level]

    def model(pop):
        nets = {name: flax_module(name, Net(outputs, width), input_shape=(inputs,)) for name, inputs, outputs in shapes}
        kin = numpyro.param("kin", 0.8, constraint=POSITIVE)
        kout = numpyro.param("kout", 0.7, constraint=POSITIVE) if level == "effect of c" else None
        sigma = numpyro.param("sigma", 0.3, constraint=POSITIVE)

        def vector_field(t, y, p):
            return field(p["nets"], kin, kout, y)

        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            start = {"depot": 0.0, "central": 0.0, "R": kin / kout if level == "effect of c" else kin}
            y = hx.solve_ode(pop, vector_field, start, shared={"nets": nets}, solver=hx.Grid(1e-5))
            hx.observe("dv", dist.Normal(y["R"], sigma), pop)

    return model


def one_subject(runs=8):
    """Return many regimens of one subject, with data of R."""
    rng = np.random.default_rng(4)
    subjects = [hx.Subject(i + 1, regimen(rng), np.sort(rng.uniform(0, 48, 15))) for i in range(runs)]
    design = hx.Population.from_subjects(subjects)

    def truth(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):

            def field(t, y, p):
                effect = hill(y["central"] / VC, TRUTH["Smax"], TRUTH["SC50"], TRUTH["n"])
                return kinetics(y) | {"R": TRUTH["Kin"] * (1 + effect) - TRUTH["Kout"] * y["R"]}

            y = hx.solve_ode(pop, field, {"depot": 0.0, "central": 0.0, "R": TRUTH["Kin"] / TRUTH["Kout"]})
            hx.observe("dv", dist.Normal(y["R"], 0.1), pop)

    return design.with_dv(dv=hx.simulate(truth, design, seed=5)["dv"].values[0])


@pytest.fixture(scope="module")
def pop():
    return one_subject()


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_every_level_fits_one_subject_to_the_noise(level, pop):
    """σ is 0.1; a constant would leave 0.8."""
    search = hx.QuasiNewton(gtol=0.2, max_iter=1000)
    weights = {f"{name}$params": dist.Normal(0.0, 3.0) for name, *_ in LEVELS[level][1]}
    fit = hx.fit(learned(level, 6), pop, hx.NaivePooled(optimiser=search), priors=weights, progress=False)
    assert fit.result is hx.Result.converged
    assert float(fit.params["sigma"]) < 0.13
    assert max(fit.solver_error.values()) < 1e-5


@pytest.mark.slow
def test_reverse_mode_through_networks_is_exact(pop):
    """The pooled objective's gradient (reverse mode, past 40 parameters) against differences on the same grid."""
    model = learned("conservation", width=6)
    program = hx.program(model, pop).program
    session = Session(program, hx.NaivePooled(), pop, layout(program))
    flat = session.layout.start(None)
    assert not session.forward
    gradient = np.asarray(session.evaluate(flat).gradient)
    for index in np.argsort(-np.abs(gradient))[[0, 3, 20]]:
        difference = central_difference(lambda x: float(session.value(x).value.sum()), flat, index, 1e-3)
        assert abs(gradient[index] - difference) <= 1e-6 * np.abs(gradient).max()


@pytest.mark.slow
def test_reverse_mode_with_100_000_weights_needs_memory_linear_in_the_steps(pop):
    """By XLA's own account: states are kept, stages and activations computed again."""
    model = learned("effect of c", width=33_334)
    program = hx.program(model, pop).program
    assert sum(leaf.size for leaf in jax.tree.leaves(program.start()["one$params"])) > 100_000
    session = Session(program, hx.NaivePooled(), pop, layout(program))
    flat = jnp.asarray(session.layout.start(None))
    session.place(np.asarray(flat))

    def value(flat, pop):
        return session.estimator.negative_log_likelihood(
            program, sanitise(pop), program.constrain(session.layout.unravel(flat)),
            session.estimator.anchor(program, pop, program.constrain(session.layout.unravel(flat)), None),
        ).sum()  # fmt: skip

    compiled = jax.jit(jax.grad(value)).lower(flat, session.pop).compile()
    memory = compiled.memory_analysis().temp_size_in_bytes
    steps = session.grids.sizes[-1] + session.pop.n_records
    # One stage's activations of all runs, a few times; without checkpoints they would be kept for every stage.
    activations = len(pop) * 33_334 * 8
    assert memory < 40 * activations + 1000 * steps * len(pop) * 3 * 8
    assert memory < 0.2 * steps * 6 * activations
    assert np.isfinite(np.asarray(compiled(flat, session.pop))).all()
