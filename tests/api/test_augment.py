"""``hx.augment``: a distribution of random effects learned from a fit, and put into the program."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import shapes
from matplotlib.figure import Figure

import hierax as hx
from hierax.data.context import Context
from hierax.infer.choice import Split

# Sixty subjects are too few for a flow, which is said; what is tested here holds all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Held-out subjects are less likely")


def small(context):
    return hx.flow("flow", 2, context, kind="sinh", layers=1, width=4)


QUICK = {"draws": 10, "penalties": (100.0,), "folds": 2, "steps": 300, "distribution": small}


def mean_of(context):
    """A linear effect of the context, for which there is an exact answer."""
    slope = numpyro.param("slope", jnp.zeros((context.shape[-1], 2)))
    return dist.MultivariateNormal(context @ slope, jnp.eye(2))


@pytest.fixture(scope="module")
def made():
    pop, eta = shapes.with_covariates(60, 0, noise=1)
    return pop, eta, hx.fit(shapes.gaussian, pop, hx.FOCE(), progress=False)


@pytest.fixture(scope="module")
def two_modes():
    pop = shapes.simulated("bimodal", 60, 0).pop
    return pop, hx.fit(shapes.gaussian, pop, hx.FOCE(), progress=False)


@pytest.fixture(scope="module")
def learned(two_modes):
    return hx.augment(two_modes[1], **QUICK)


@pytest.mark.slow
def test_the_gain_is_that_of_the_marginal_likelihood(two_modes, learned):
    """The mean ratio of priors over draws is the ratio of marginal likelihoods: against importance sampling."""
    sampling = hx.ImportanceSampling(2000, proposal="t")
    before = hx.log_likelihood(two_modes[1], sampling).subjects["log_likelihood"]
    after = hx.log_likelihood(learned.fit, sampling).subjects["log_likelihood"]
    # Ten draws a subject, each with a ratio whose SD is a few per cent; 60 subjects.
    np.testing.assert_allclose((after - before).mean(), learned.gain.mean(), atol=0.03)
    assert learned.gain.mean() > 0


@pytest.mark.slow
def test_the_program_runs_everywhere(two_modes, learned):
    pop, fit = two_modes
    drawn = hx.simulate(learned.fit, pop, n=2)
    assert drawn["eta"].shape[:2] == (2, 60)
    assert set(learned.redundant) == {"cl", "tril", "v"}
    alone = hx.fit(
        learned.model,
        pop,
        hx.VI(steps=200, automatic=False),
        init=learned.params,
        fixed=learned.others,
        priors=learned.priors,
        progress=False,
    )
    assert all(np.array_equal(alone.params[name], fit.params[name]) for name in learned.others)
    assert not np.array_equal(
        alone.params["flow$params"]["layer_0"]["Autoregressive_0"]["last"]["bias"],
        learned.params["flow$params"]["layer_0"]["Autoregressive_0"]["last"]["bias"],
    )


@pytest.mark.slow
def test_a_linear_effect_is_found_and_noise_is_left_out(made):
    pop, eta, fit = made
    found = hx.augment(fit, ["x1", "noise0"], distribution=mean_of, penalties=(1.0,), folds=2, steps=500)
    assert found.context.names == ("x1",)
    assert found.importance["p"]["x1"] < 0.01 < found.importance["p"]["noise0"]
    x = np.asarray(pop.covariates["x1"])[:60, 0]
    slope = np.polyfit((x - x.mean()) / x.std(), eta[:, 0], 1)[0]
    # The learned slope is in SDs of the fit; draws of well-observed subjects are their random effects.
    ours = np.asarray(fit.params["tril"])[0, 0] * found.params["slope"][0, 0]
    np.testing.assert_allclose(ours, slope, rtol=0.1)


@pytest.mark.slow
def test_early_stopping_keeps_what_held_out_subjects_like_best(made):
    found = hx.augment(made[2], **{**QUICK, "folds": 5}, held_out=0.25, patience=1)
    # The table's gain is that of the weights that are kept.
    watched = Split.of(made[2].rows, 5, 0.25, 1, 0).parts[0]
    assert len(watched) == 15
    np.testing.assert_allclose(found.gain.to_numpy()[watched].mean(), found.table["gain"][0])


@pytest.mark.slow
def test_refit_of_the_distribution_alone(made):
    found = hx.augment(
        made[2],
        ["x1"],
        distribution=mean_of,
        refit=hx.FOCE(),
        joint=False,
        select=False,
        penalties=(1.0,),
        folds=2,
        steps=500,
    )
    assert found.fit.result is hx.Result.converged
    # It ended where moving away makes the data less likely.
    start = hx.evaluate(found.model, made[0], {**made[2].params, "slope": found.params["slope"] + 0.05}, hx.FOCE())
    assert found.fit.log_likelihood > start.log_likelihood


@pytest.mark.slow
def test_plots(learned):
    assert isinstance(hx.plot.random_effects(learned.fit, n=2000), Figure)
    with pytest.raises(ValueError, match=r"no random effect 'eat'.*\['eta'\]"):
        hx.plot.random_effects(learned.fit, site="eat")
    with pytest.raises(ValueError, match=r"\['weight'\] are no covariates"):
        hx.covariate_effects(learned.fit, "weight")


def test_covariates_are_shown(made):
    fit = made[2]
    with pytest.raises(ValueError, match=r"numpyro.deterministic"):
        hx.covariate_effects(fit, "x1")


def test_partial_dependence_is_that_of_the_program(made):
    """Without random effects to speak of, the median is the typical value at the covariate, whoever the subject is."""

    def model(pop):
        slope = numpyro.param("slope", 0.5)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(jnp.zeros(2), 1e-6).to_event(1))
            numpyro.deterministic("CL", 3.0 * jnp.exp(slope * pop.covariates["x1"] + eta[..., 0]))
            shapes.respond(pop, eta)

    at = hx.evaluate(model, made[0], {}, hx.FOCE())
    table = hx.covariate_effects(at, ["x1", "x2"], points=5, n=2)
    rows = table[table["covariate"] == "x1"]
    np.testing.assert_allclose(rows["median"], 3.0 * np.exp(0.5 * rows["value"]), rtol=1e-4)
    np.testing.assert_allclose(rows["upper"], rows["median"], rtol=1e-4)
    # Over x2 nothing changes, but subjects differ in x1.
    assert table[table["covariate"] == "x2"]["median"].nunique() == 1
    assert isinstance(hx.plot.covariates(at, "x1", points=3, n=1), Figure)


def test_contexts_name_what_is_missing_and_spread_categories():
    pop = shapes.design(4, x=np.arange(4.0)).with_data(score=np.arange(8.0).reshape(4, 2))
    context = Context.of(pop, ["x", "score"])
    assert context.sizes == (1, 2)
    assert context.places == {"x": [0], "score": [1, 2]}
    values = np.asarray(context(pop))
    assert values.shape == (4, 1, 3)
    np.testing.assert_allclose(values.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(values.std(0), 1)
    with pytest.raises(ValueError, match=r"not \['y'\]"):
        Context.of(pop, ["x", "y"])


def test_slips_are_named(made):
    fit = made[2]
    with pytest.raises(ValueError, match="one positive strength or more"):
        hx.augment(fit, penalties=())
    with pytest.raises(ValueError, match=r"folds=1\) cannot split 60"):
        hx.augment(fit, folds=1)
    with pytest.raises(ValueError, match="no fraction"):
        hx.augment(fit, held_out=2.0)
    with pytest.raises(ValueError, match=r"no random effect 'xi', but \['eta'\]"):
        hx.augment(fit, site="xi")
    with pytest.raises(hx.ModelError, match="registers no parameters"):
        hx.augment(fit, distribution=lambda context: dist.Normal(jnp.zeros(2), 1.0).to_event(1))
