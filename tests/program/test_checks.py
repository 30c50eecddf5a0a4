"""Programs that break the contract are refused before anything compiles, with the site's name and a remedy."""

import flax.linen as linen
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import zoo
from numpyro.contrib.module import flax_module, random_flax_module

import hierax as hx


def build(inside=None, outside=None, after=None, plate="subject", size=None):
    """Return a linear model with something done to it."""

    def model(pop):
        base = outside(pop) if outside else 0.0
        with numpyro.plate(plate, size or pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
            effect = inside(eta, pop) if inside else eta
            hx.observe("dv", dist.Normal(base + effect + 0 * pop.times, 1.0), pop)
        if after:
            after(eta, pop)

    return model


def _weights(eta, pop):
    return numpyro.deterministic("CL", eta[:, 0] * pop.covariates["WT"])


REFUSED = {
    "mean of the random effects": (
        build(lambda eta, pop: eta - eta.mean()),
        r"Random effect site 'eta' of one subject changes 'dv' of other subjects",
    ),
    "(subject, subject) seen in the shape": (
        build(lambda eta, pop: numpyro.deterministic("CL", eta * pop.covariates["WT"][:, 0]).mean(1, keepdims=True)),
        r"'CL'.*(has shape \(12, 12\)|of one subject)",
    ),
    "(subject, subject) hidden by a sum": (
        build(lambda eta, pop: (eta * pop.covariates["WT"][:, 0]).sum(1, keepdims=True)),
        r"Site 'dv' of one subject depends on the data of other subjects",
    ),
    "statistic of the batch": (
        build(lambda eta, pop: eta + jnp.mean(pop.dv["dv"])),
        r"Site 'dv' of one subject depends on the data of other subjects",
    ),
    "latent outside the plate": (
        build(outside=lambda pop: numpyro.sample("e0", dist.Normal(0, 1).expand([pop.n_subjects, 1]).to_event(2))),
        r"Site 'e0' outside the plate has one entry for each of the 12 subjects",
    ),
    "param by subject": (
        build(lambda eta, pop: eta + numpyro.param("shift", jnp.zeros((pop.n_subjects, 1)))),
        r"param 'shift' of shape \(12, 1\) has one entry a subject",
    ),
    "data outside the plate": (
        build(after=lambda eta, pop: numpyro.sample("total", dist.Normal(eta.sum(), 1.0), obs=0.0)),
        r"The observed site 'total' stands outside plate 'subject'",
    ),
    "factor outside the plate": (
        build(after=lambda eta, pop: numpyro.factor("penalty", -1.0)),
        r"The factor 'penalty' stands outside plate 'subject'",
    ),
    "discrete random effect": (
        build(lambda eta, pop: eta + numpyro.sample("class", dist.Bernoulli(0.5))),
        r"Random effect 'class' is discrete.*MixtureSameFamily",
    ),
    "discrete parameter": (
        build(outside=lambda pop: 1.0 * numpyro.sample("class", dist.Bernoulli(0.5))),
        r"Latent site 'class' is discrete.*MixtureSameFamily",
    ),
    "other name of the plate": (
        build(plate="patients"),
        r"observes nothing in plate 'subject', because its plates are \['patients', 'time'\]",
    ),
    "mutable state": (
        build(lambda eta, pop: eta + numpyro.primitives.mutable("counter", jnp.zeros(()))),
        r"Mutable site 'counter' is refused",
    ),
    "network by subject": (
        build(
            lambda eta, pop: (
                eta
                + random_flax_module("net", linen.Dense(1), dist.Normal(0.0, 1.0), input_shape=(1,))(
                    pop.covariates["WT"]
                )
            )
        ),
        r"Site 'net/\w+' comes from a random_flax_module.*nn\.individualise",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(theo_pop, name):
    model, text = REFUSED[name]
    with pytest.raises(hx.ModelError, match=text):
        hx.program(model, theo_pop)


def test_latent_in_another_plate(theo_pop):
    def model(pop):
        with numpyro.plate("study", 3):
            level = numpyro.sample("level", dist.Normal(0.0, 1.0))
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
            hx.observe("dv", dist.Normal(eta + level[0] + 0 * pop.times, 1.0), pop)

    with pytest.raises(hx.ModelError, match=r"Latent site 'level' stands in plate \['study'\]"):
        hx.program(model, theo_pop)


def test_plate_of_another_size(theo_pop):
    with pytest.raises(hx.ModelError, match=r"Plate 'subject' has size 7, but the population has 12"):
        hx.program(build(size=7), theo_pop)


def test_broadcast_slip_in_a_structural_model_names_the_argument(theo_pop):
    def model(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 1.0).expand([1]).to_event(1))
            conc = hx.pk.one_compartment(pop, CL=jnp.exp(eta[..., 0]) * pop.covariates["WT"][:, 0], V=1.0)
            hx.observe("dv", dist.Normal(conc, 1.0), pop)

    with pytest.raises(ValueError, match=r"CL has shape \(12, 12\).*`eta\[\.\.\., 0\] \* x`"):
        hx.program(model, theo_pop)


def _with_factor(eta, pop):
    numpyro.factor("extra", -0.5 * eta**2)
    return eta


def test_estimators_refuse_what_they_cannot_use(theo_pop):
    factor = build(_with_factor)
    for estimator in (hx.FOCE(), hx.FO(), hx.AGQ(3)):
        with pytest.raises(hx.EstimatorError, match=r"cannot use factor 'extra'.*(Use Laplace|hessian='full')"):
            hx.evaluate(factor, theo_pop, {}, estimator)
    for estimator in (hx.Laplace(), hx.AGQ(3, "full")):
        assert np.isfinite(hx.evaluate(factor, theo_pop, {}, estimator).ofv)


def test_foce_refuses_unknown_families_and_fo_needs_gaussian_data(theo_pop):
    def laplace(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
            hx.observe("dv", dist.Laplace(jnp.exp(eta) + 0 * pop.times, 1.5), pop)

    def gamma_effect(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Gamma(2.0, 2.0))
            hx.observe("dv", dist.Normal(eta + 0 * pop.times, 1.0), pop)

    with pytest.raises(hx.EstimatorError, match=r"FOCE cannot use the data site 'dv' \(Laplace\).*Use Laplace"):
        hx.evaluate(laplace, theo_pop, {}, hx.FOCE())
    with pytest.raises(hx.EstimatorError, match=r"FO cannot use random effect 'eta' \(Gamma\)"):
        hx.evaluate(gamma_effect, theo_pop, {}, hx.FO())
    assert np.isfinite(hx.evaluate(gamma_effect, theo_pop, {}, hx.FOCE()).ofv)


def test_foce_refuses_a_df_that_follows_a_random_effect(theo_pop):
    def student(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
            hx.observe("dv", dist.StudentT(5.0 + eta**2, 0.0 * pop.times, 1.0), pop)

    with pytest.raises(hx.EstimatorError, match=r"parameter 'df' of the data site 'dv'.*depends on random effects"):
        hx.evaluate(student, theo_pop, {}, hx.FOCE())


def test_a_large_closed_over_array_is_warned_of(theo_pop):
    images = np.ones((12, 1))

    def model(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
            hx.observe("dv", dist.Normal(eta + images + 0 * pop.times, 1.0), pop)

    with pytest.warns(hx.HieraxWarning, match=r"closes over an array of shape \(12, 1\).*pop\.with_data"):
        hx.program(model, theo_pop)


def test_check_prints_the_table_of_sites(theo_pop, capsys):
    table = hx.check(zoo.theophylline, theo_pop)
    printed = capsys.readouterr().out
    assert "12 subjects, 132 observations" in printed
    assert table.loc["omega", "class"] == "population parameter"
    assert table.loc["omega", "shape"] == (3,)
    assert table.loc["ka", "distribution or constraint"] == "Positive"
    assert table.loc["eta", "class"] == "random effect"
    assert table.loc["eta", "shape"] == (12, 1, 3)
    assert table.loc["dv", "class"] == "data"
    assert table.loc["CL", "class"] == "individual parameter"


def test_network_weights_are_population_parameters_in_the_working_precision(theo_pop):
    def model(pop):
        net = flax_module("net", linen.Dense(1), input_shape=(1,))
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
            hx.observe("dv", dist.Normal(net(pop.covariates["WT"] / 70) + eta + 0 * pop.times, 1.0), pop)

    table = hx.check(model, theo_pop, show=False)
    assert table.loc["net$params", "class"] == "network weights"
    assert table.loc["net$params", "shape"] == "2 numbers"
    weights = hx.program(model, theo_pop).start["net$params"]
    assert weights["kernel"].dtype == np.float64


@pytest.mark.parametrize("site", ["omega", "sigma"])
def test_a_scale_that_is_not_positive_is_named_with_its_line(theo_pop, site):
    """NumPyro alone says that some Normal distribution got an invalid scale parameter."""
    start = {"omega": 0.3, "sigma": 0.5, site: -0.3}

    def model(pop):
        omega, sigma = (numpyro.param(name, start[name]) for name in ("omega", "sigma"))
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, omega))
            hx.observe("dv", dist.Normal(eta + 0 * pop.times, sigma), pop)

    line = {"omega": r"line \d+ of model .*: eta = numpyro", "sigma": r"line \d+ of model .*: hx\.observe"}[site]
    for run in (hx.check, lambda *a: hx.fit(*a, hx.SAEM(), progress=False)):
        with pytest.raises(hx.ModelError, match=rf"{line}.*not positive there: {site} = -0\.3.*constraints\.positive"):
            run(model, theo_pop)
