"""``hx.augment``: a distribution of random effects learned from a fit, and put into the program."""

import warnings

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.optimize
import scipy.stats
import shapes
from matplotlib.figure import Figure

import hierax as hx
from hierax.analyse.augment_advice import advise
from hierax.data.context import Context
from hierax.infer.learn.choice import Choice, Split
from hierax.infer.learn.two_stage import Draws, Learner, _log_mean

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
    with pytest.raises(ValueError, match=r"\['weight'\] are not covariates with one number per subject"):
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
    with pytest.raises(ValueError, match="must be a fraction of the subjects"):
        hx.augment(fit, held_out=2.0)
    with pytest.raises(ValueError, match=r"no random effect 'xi'. Name one of \['eta'\]"):
        hx.augment(fit, site="xi")
    with pytest.raises(hx.ModelError, match="registers no parameters"):
        hx.augment(fit, distribution=lambda context: dist.Normal(jnp.zeros(2), 1.0).to_event(1))


# -- bias of the log of a mean over draws ------------------------------------------------------------------------------


def gaussian_posterior(y, noise, draws, seed):
    """Draws of N(0, 1) random effects that were seen with normal errors, and the log density of their prior."""
    variance = 1 / (1 + 1 / noise**2)
    z = variance * y / noise**2 + np.sqrt(variance) * np.random.default_rng(seed).normal(size=(draws, *y.shape))
    return Draws(z, scipy.stats.norm.logpdf(z).sum(-1))


def correlated(context):
    rho = jnp.tanh(numpyro.param("rho", 0.0))
    return dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2) + rho * jnp.array([[0.0, 1.0], [1.0, 0.0]]))


@pytest.fixture(scope="module")
def sparse_pairs():
    """Two endpoints of 400 subjects, seen with errors as large as the random effects; the exact ML of rho."""
    rng = np.random.default_rng(0)
    y = rng.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], 400) + rng.normal(size=(400, 2))

    def loss(rho):
        return -scipy.stats.multivariate_normal([0, 0], [[2, rho], [rho, 2]]).logpdf(y).sum()

    return y, scipy.optimize.minimize_scalar(loss, bounds=(-0.99, 0.99), method="bounded").x


def learned_rho(y, draws):
    learner = Learner(correlated, gaussian_posterior(y, 1.0, draws, 1), steps=600)
    trained = learner.train(np.ones(len(y), bool), 0.0)
    return float(jnp.tanh(trained.flat[0])), float(learner.bias(trained.flat).mean())


def test_sparse_endpoints_are_joined_as_maximum_likelihood_joins_them(sparse_pairs):
    """With 8 draws a step the correlation was 0.44 for an exact 0.675; here it is within 0.04."""
    y, exact = sparse_pairs
    np.testing.assert_allclose(exact, 0.654, atol=1e-3)
    found, bias = learned_rho(y, 160)
    np.testing.assert_allclose(found, exact, atol=0.04)
    # Few draws are found out by their bias, which is the larger the fewer they are.
    few, more = learned_rho(y, 8)
    assert more > 5 * bias > 0
    assert few < exact + 0.02


def test_the_bias_of_few_draws_is_added_back():
    """The mean of log w̄ over many repetitions of 40 log-normal ratios against log E w = 0."""
    ratios = 0.8 * np.random.default_rng(2).normal(size=(40, 20_000)) - 0.32
    raw, bias = _log_mean(jnp.asarray(ratios))
    error = float(raw.std()) / np.sqrt(20_000)
    # (e^0.64 − 1) / 80 = 0.0112 to first order.
    np.testing.assert_allclose(-float(raw.mean()), 0.0112, atol=4 * error + 1e-3)
    assert abs(float((raw + bias).mean())) < 0.2 * abs(float(raw.mean()))


@pytest.mark.slow
def test_subjects_with_one_sample_do_not_make_the_distribution_flat():
    """200 rich subjects, and 200 with one sample of sigma 1: two modes with SDs of 0.15.

    With 8 draws a step the sparse ones cost 82 nats per 1 000 held-out subjects, here nothing to speak of:
    a fit of the exact density's family to so many subjects is some 30 nats below the truth.
    """
    rng = np.random.default_rng(0)
    centres, width = np.array([-0.6, 0.9]), 0.15
    sd = np.sqrt(0.6 * 0.36 + 0.4 * 0.81 + width**2)

    def drawn(n):
        return np.where(rng.random(n) < 0.6, *centres) + width * rng.normal(size=n)

    def modes(context):
        odds, at = numpyro.param("odds", jnp.zeros(2)), numpyro.param("at", jnp.array([-0.7, 0.7]))
        spread = jnp.exp(numpyro.param("spread", jnp.full(2, -0.7)))
        parts = dist.Normal(at[:, None], spread[:, None]).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=odds), parts)

    values, held = drawn(400) / sd, drawn(20_000) / sd
    noise = np.where(np.arange(400) < 200, 0.1, 1.0)[:, None] / sd
    y = values[:, None] + noise * rng.normal(size=(400, 1))
    exact = np.log(sum(p * scipy.stats.norm.pdf(held * sd, c, width) for p, c in zip((0.6, 0.4), centres, strict=True)))
    below = {}
    for label, count in (("rich", 200), ("all", 400)):
        learner = Learner(modes, gaussian_posterior(y[:count], noise[:count], 160, 1), steps=1000)
        trained = learner.train(np.ones(count, bool), 0.0)
        with numpyro.handlers.seed(rng_seed=0), numpyro.handlers.substitute(data=learner.params(trained.flat)):
            fn = modes(None)
        below[label] = 1000 * np.mean(exact - np.asarray(fn.log_prob(held[:, None])) + np.log(sd))
    assert below["rich"] < 50
    assert below["all"] < below["rich"] + 20


def test_an_evaluation_is_as_good_as_a_fit(two_modes):
    """Nothing has to have been estimated for random effects to be drawn."""
    pop, fit = two_modes
    at = hx.evaluate(shapes.gaussian, pop, fit.params, hx.FOCE())
    found = hx.augment(at, **{**QUICK, "steps": 50})
    # Chains are of one length: ten draws become a multiple of four.
    assert found.draws == 12
    assert np.isfinite(found.gain).all()


def test_a_penalty_at_the_end_of_its_list_is_said():
    draws = gaussian_posterior(np.zeros((4, 2)), 1.0, 4, 0)
    choice = Choice("d", Learner(correlated, draws, steps=50), Split(np.arange(4), [], None, 0))
    for strength, gain in ((100.0, 0.1), (10.0, 0.2), (1.0, 0.3)):
        choice.gains[strength] = np.full(4, gain)
    with pytest.warns(hx.HieraxWarning, match=r"weakest penalty of the list, 1, was chosen.*Add 0\.2 to penalties="):
        advise(choice, (100.0, 10.0, 1.0), 0.0, 0.3)
    choice.gains[100.0] = np.full(4, 0.5)
    with pytest.warns(hx.HieraxWarning, match=r"strongest penalty of the list, 100, was chosen"):
        advise(choice, (100.0, 10.0, 1.0), 0.0, 0.3)
    choice.gains[10.0] = np.full(4, 0.6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        advise(choice, (100.0, 10.0, 1.0), 0.0, 0.3)
    with pytest.warns(hx.HieraxWarning, match=r"over 4 draws is too low by 0\.2000 nats.*leave draws= out"):
        advise(choice, (100.0, 10.0, 1.0), 0.2, 0.3)
