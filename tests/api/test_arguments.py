"""Arguments that ask for nothing, or for what there is not, are refused by name before anything runs."""

import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import zoo
from linear_normal import linear, linear_population
from zoo import POSITIVE

import hierax as hx


@pytest.fixture(scope="module")
def pop():
    return linear_population(1.0 + np.random.default_rng(0).normal(size=(8, 3)))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"starts": -3}, "starts=-3"),
        ({"starts": 0}, "starts=0"),
        ({"patience": 3}, "patience"),
        ({"seed": None}, "seed=None must be a whole number of 0 or more"),
        ({"checkpoint": 5}, "checkpoint=5 must be a path"),
        ({"init": [1.0]}, "init is a list, but must be a mapping of names of population parameters"),
        ({"init": {"mu": "3"}}, r"init\['mu'\] is '3', but must be a real number"),
        ({"init": {"mu": 1j}}, r"init\['mu'\] is 1j, but must be a real number"),
        ({"priors": [1]}, "priors is a list, but must be a mapping of names to distributions"),
    ],
)
def test_options_that_ask_for_nothing(pop, options, text):
    with pytest.raises(ValueError, match=text):
        hx.fit(linear, pop, hx.FOCE(), progress=False, **options)


def test_an_option_of_another_estimator_is_named_with_those_that_exist():
    with pytest.raises(TypeError, match=r"SAEM has no option iterations=.*Its options are .*exploratory"):
        hx.SAEM(iterations=100)


def test_a_wrong_plate_is_one_message(pop):
    with pytest.raises(hx.ModelError, match="patient") as caught:
        hx.fit(linear, pop, hx.FOCE(), plate="patient", progress=False)
    assert len(str(caught.value).splitlines()) == 1


def test_evaluate_takes_a_fit(pop):
    fit = hx.fit(linear, pop, hx.FOCE(), progress=False)
    assert hx.evaluate(linear, pop, fit, hx.FOCE()).ofv == pytest.approx(fit.ofv, abs=1e-9)


def growth(with_weight):
    def model(pop):
        slope = numpyro.param("slope", 1.0)
        effect = numpyro.param("effect", 0.0) * (pop.covariates["WT"] - 70) if with_weight else 0.0
        omega, sigma = (numpyro.param(name, 0.5, constraint=POSITIVE) for name in ("omega", "sigma"))
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0, omega))
            hx.observe("dv", dist.Normal(slope * pop.times + eta + effect, sigma), pop)

    return model


def test_the_same_observations_compare_with_and_without_covariates():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"ID": np.repeat(range(6), 4), "TIME": np.tile(np.arange(4.0), 6)})
    frame["WT"] = np.repeat(rng.normal(70, 10, 6), 4)
    frame["DV"] = frame["TIME"] + np.repeat(rng.normal(0, 0.5, 6), 4) + rng.normal(0, 0.3, 24)
    bare = hx.fit(growth(False), hx.read_nonmem(frame), hx.FOCE(), progress=False)
    weighed = hx.fit(growth(True), hx.read_nonmem(frame, covariates=["WT"]), hx.FOCE(), progress=False)
    table = hx.compare({"bare": bare, "weighed": weighed})
    assert set(table.index) == {"bare", "weighed"}
    frame.loc[0, "DV"] += 1.0
    other = hx.fit(growth(False), hx.read_nonmem(frame), hx.FOCE(), progress=False)
    with pytest.raises(ValueError, match="different data"):
        hx.compare({"bare": bare, "other": other})


def test_shares_numbers_and_masks_are_looked_at_first(theo_fit, theo_pop):
    with pytest.raises(ValueError, match=r"profile\(level=95\) must be a confidence level between 0 and 1"):
        hx.profile(theo_fit, "cl", level=95)
    with pytest.raises(ValueError, match=r"profile\(reach=-1\) must be a positive number"):
        hx.profile(theo_fit, "cl", reach=-1)
    with pytest.raises(ValueError, match=r"vpc\(.*level=95\) needs shares"):
        hx.vpc(theo_fit, level=95)
    with pytest.raises(ValueError, match="n=0 must be a whole number of 1 or more"):
        hx.simulate(theo_fit, n=0)
    with pytest.raises(ValueError, match=r"AGQ\(n=2.5\) must be a whole number"):
        hx.AGQ(2.5)
    with pytest.raises(ValueError, match=r"'sigma' the value -1.0, which is outside its constraint \(Positive\)"):
        hx.simulate(theo_fit, params={"sigma": -1.0})
    # Without noise is a simulation like any other.
    hx.simulate(theo_fit, params={"sigma": 0.0})
    held = r"must be a mask of True and False. To hold cl .*fixed=\[.cl.\] and init=\{.cl.: 3.0\}"
    with pytest.raises(ValueError, match=held):
        hx.fit(zoo.theophylline, theo_pop, hx.FOCE(), fixed={"cl": 3.0}, progress=False)


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (lambda fit: hx.simulate(fit, seed=-1), "seed=-1 must be a whole number of 0"),
        (lambda fit: hx.bootstrap(fit, n=2.5), "n=2.5 must be a whole number"),
        (lambda fit: hx.bootstrap(fit, n=3, executor=4), "executor=4 cannot be given work"),
        (lambda fit: hx.sir(fit, n=True), "n=True must be a whole number"),
        (lambda fit: hx.compare([fit, fit]), "models is a list, but must be a mapping of names to fits"),
        (lambda fit: hx.compare({"a": fit, "b": 3}), "'b' is a int, which has no likelihood"),
        (lambda fit: hx.vpc(fit, bins=[0, 0]), r"bins=\[0, 0\] must be finite, increasing times"),
        (lambda fit: hx.vpc(fit, lloq=99.0), "leaves no quantified value of 'dv', of which the data lie between"),
        (lambda fit: fit.pop.at_times([]), "at_times got no times"),
        (lambda fit: fit.pop.at_times([np.nan]), "times that are no finite numbers"),
        (lambda fit: hx.evaluate(linear, fit.pop[[]], {}, hx.FO()), "The population has no subjects"),
        (lambda fit: hx.Regimen(-1), "amount=-1 must be a finite number of 0 or more"),
        (lambda fit: hx.Regimen(100, interval=12), "the time between doses, but there is only one dose"),
        (lambda fit: hx.QuasiNewton(gtol=-1), "gtol=-1 must be a number above 0"),
        (lambda fit: hx.SAEM(chains="3"), r"SAEM\(chains='3'\) must be a whole number"),
    ],
)
def test_odd_arguments_of_everything_else(theo_fit, ask, text):
    with pytest.raises(ValueError, match=text):
        ask(theo_fit)


@pytest.mark.parametrize("rows", [99, 5.5, [True, False]], ids=str)
def test_positions_that_are_not_there(pop, rows):
    with pytest.raises(
        IndexError,
        match=r"cannot pick subjects by position, because the population has 8 subjects, numbered from 0.*pop\.loc",
    ):
        pop[rows]


def test_maximum_a_posteriori_without_any_prior_is_said():
    with pytest.warns(hx.HieraxWarning, match="MAP finds no prior"):
        hx.fit(zoo.wang_additive, zoo.wang_population(), hx.MAP(), progress=False)


def of_one_endpoint(pop):
    level = numpyro.param("level", 0.0)
    omega, sigma = (numpyro.param(name, 0.5, constraint=POSITIVE) for name in ("omega", "sigma"))
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0, omega))
        hx.observe("pk", dist.Normal(level + eta + 0 * pop.times, sigma), pop)


def test_an_endpoint_that_the_model_does_not_observe_is_said(capsys):
    frame = pd.DataFrame({"ID": np.repeat(range(6), 4), "TIME": np.tile(np.arange(4.0), 6), "DVID": [1, 1, 2, 2] * 6})
    frame["DV"] = np.random.default_rng(0).normal(size=24)
    pop = hx.read_nonmem(frame, endpoints={"pk": 1, "pd": 2})
    said = "The model does not observe 'pd', so that its 12 observations are not used."
    hx.check(of_one_endpoint, pop)
    assert said in capsys.readouterr().out
    assert said in str(hx.fit(of_one_endpoint, pop, hx.FO(), progress=False).summary())


def test_a_plate_on_the_axis_of_the_records_is_named(pop):
    def model(pop):
        omega = numpyro.param("omega", 0.5, constraint=POSITIVE)
        with numpyro.plate("subject", pop.n_subjects):
            eta = numpyro.sample("eta", dist.Normal(0, omega))
            hx.observe("dv", dist.Normal(eta[:, None] + 0 * pop.times, 1.0), pop)

    with pytest.raises(ValueError, match=r"another plate on dimension -1.*dim=-2"):
        hx.check(model, pop)
