"""Whatever stands in masked entries and in padding, nothing moves: no value, no gradient, no Hessian entry."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import zoo

import hierax as hx
from hierax.infer.marginal.session import Session
from hierax.program.parameters import layout

ESTIMATORS = [hx.FOCE(), hx.FO(), hx.Laplace(), hx.FOCE(interaction=False), hx.AGQ(3)]


def poisoned(kind):
    """Return a model whose predictions at unobserved records are bad, with derivatives that are worse."""

    def model(pop):
        v = numpyro.param("v", 30.0, constraint=zoo.POSITIVE)
        omega = numpyro.param("omega", 0.3, constraint=zoo.POSITIVE)
        sigma = numpyro.param("sigma", 0.3, constraint=zoo.POSITIVE)
        seen = jnp.asarray(pop.mask["dv"])
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, omega))
            conc = hx.pk.one_compartment(pop, CL=3.0, V=v * jnp.exp(eta))
            if kind == "zero":
                conc = jnp.where(seen, conc, 0.0 * jnp.sqrt(eta - eta))
            elif kind == "infinite":
                conc = jnp.where(seen, conc, 1.0 / (eta - eta))
            elif kind == "nan":
                conc = jnp.where(seen, conc, jnp.nan * eta)
            elif kind == "log of zero":
                hx.observe("dv", dist.LogNormal(jnp.log(jnp.where(seen, conc, 0.0 * eta)), sigma), pop)
                return
            elif kind == "log":
                hx.observe("dv", dist.LogNormal(jnp.log(conc), sigma), pop)
                return
            hx.observe("dv", dist.Normal(conc, sigma * conc), pop)

    return model


clean_models = {kind: poisoned(kind) for kind in ("none", "log")}


@pytest.fixture(scope="module")
def pop():
    frame = hx.datasets.load("theophylline")
    return hx.read_nonmem(frame[(frame["EVID"] == 1) | (frame["DV"] > 0)])[:4]


def everything(model, pop, estimator, session=None):
    """Return values, gradients, scores, modes and Hessian blocks at a point away from the optimum."""
    program = hx.program(model, pop).program
    session = session or Session(program, estimator, pop, layout(program))
    flat = session.layout.start(None) + 0.1
    out = session.evaluate(flat)
    real = np.asarray(pop.subject_mask)
    return [
        np.asarray(x) for x in (out.value[real], out.gradient, out.scores[:, real], out.eta[real], out.hessian[real])
    ]


@pytest.mark.parametrize(
    ("bad", "good", "estimator"),
    [
        ("zero", "none", hx.FOCE()),
        ("infinite", "none", hx.FOCE()),
        ("infinite", "none", hx.Laplace()),
        ("nan", "none", hx.FOCE()),
        ("log of zero", "log", hx.Laplace()),
    ],
    ids=lambda value: getattr(value, "label", value),
)
def test_bad_predictions_where_nothing_is_observed(pop, estimator, bad, good):
    for found, expected in zip(
        everything(poisoned(bad), pop, estimator), everything(clean_models[good], pop, estimator), strict=True
    ):
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "estimator",
    [pytest.param(e, marks=[pytest.mark.slow] if i > 1 else [], id=e.label) for i, e in enumerate(ESTIMATORS)],
)
def test_padded_subjects_and_changed_padding(theo_pop, estimator):
    small = theo_pop[:3]
    expected = everything(zoo.theophylline, small, estimator)
    padded = small.pad(n_subjects=5, n_records=14, n_doses=2)
    for found, value in zip(everything(zoo.theophylline, padded, estimator), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-11, atol=1e-12)
    once = everything(zoo.theophylline, padded, estimator)
    for junk in (7.0, np.nan, np.inf):
        for found, value in zip(everything(zoo.theophylline, _spoil(padded, junk), estimator), once, strict=True):
            np.testing.assert_array_equal(found, value)


def _spoil(pop, junk):
    """Write junk into every number of padded subjects, records and doses."""
    real, held, dosed = pop.subject_mask, pop.record_mask & pop.subject_mask[:, None], pop.events.mask

    def on_records(leaf):
        leaf = np.asarray(leaf, float).copy()
        leaf[~real] = junk
        if leaf.shape == held.shape:
            leaf[~held] = junk
        return leaf

    events = {name: np.where(dosed, getattr(pop.events, name), junk) for name in ("time", "amount", "rate")}
    return dataclasses.replace(
        pop,
        times=on_records(pop.times),
        dv={name: np.where(pop.mask[name] & held, leaf, junk) for name, leaf in pop.dv.items()},
        covariates={name: on_records(leaf) for name, leaf in pop.covariates.items()},
        events=dataclasses.replace(pop.events, **events),
    )


def test_a_padded_subject_adds_exactly_nothing(theo_pop):
    program = hx.program(zoo.theophylline, theo_pop.pad(16)).program
    session = Session(program, hx.FOCE(), theo_pop.pad(16), layout(program))
    out = session.evaluate(session.layout.start(None))
    assert np.asarray(out.value)[12:].tolist() == [0.0] * 4
    assert (np.asarray(out.scores)[:, 12:] == 0).all()
    assert (np.asarray(out.eta)[12:] == 0).all()


def test_observe_masks_parameters_in_reverse_mode_too(theo_pop):
    """The distribution's parameters are replaced, so no derivative of a bad one gets through by itself."""
    seen = jnp.asarray(theo_pop.mask["dv"])

    def density(loc):
        with numpyro.handlers.seed(rng_seed=0), numpyro.handlers.trace() as trace:
            with numpyro.plate("subject", theo_pop.n_subjects, dim=-2):
                hx.observe("dv", dist.Normal(jnp.where(seen, loc, jnp.nan), 1.0), theo_pop)
        return trace["dv"]["fn"].log_prob(trace["dv"]["value"]).sum()

    gradient = jax.jit(jax.grad(density))(jnp.zeros(seen.shape))
    np.testing.assert_array_equal(gradient[~seen], 0.0)
    np.testing.assert_allclose(gradient[seen], theo_pop.dv["dv"][np.asarray(seen)])
