"""Variational inference held to exact likelihoods, and its mini-batches, seeds and interruptions to themselves."""

import dataclasses

import indirect
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import zoo
from helpers import prepared

import hierax as hx
from hierax.api.vi import _Run

EXACT = np.array([1.5829, 2.7502, 31.622, 0.63643, 0.26517, 0.13596, 0.69591])
POSITIVE = dist.constraints.positive


def vector(params):
    return np.array([params["ka"], params["cl"], params["v"], *params["omega"], params["sigma"]])


def run_of(model, pop, vi, seed=0):
    job = prepared(model, pop, seed)
    return _Run(job, vi, job.session(vi.objective))


@pytest.fixture(scope="module")
def weighted(theo_pop):
    return hx.fit(zoo.theophylline, theo_pop, hx.VI(samples=64), progress=False)


def test_many_samples_are_maximum_likelihood(weighted):
    """K = 64: exact maximum likelihood but for the optimiser's noise; its bound is the log likelihood."""
    assert weighted.result is hx.Result.converged
    np.testing.assert_allclose(vector(weighted.params), EXACT, rtol=0.015)
    np.testing.assert_allclose(-2 * weighted.variational.elbo[0], 360.70071, atol=0.05)
    assert np.isnan(weighted.ofv)


def test_the_bound_is_below_the_likelihood(theo_pop):
    """By how much: the guide's misfit. The mean-field guide is worse than the full one."""
    bounds = {}
    for rank in ("full", "mean-field"):
        fit = hx.fit(zoo.theophylline, theo_pop, hx.VI(guide=hx.guides.Normal(rank), steps=2000), progress=False)
        bounds[rank] = fit.variational.bounds(theo_pop).sum()
        exact = hx.log_likelihood(fit, hx.AGQ(9)).log_likelihood
        assert bounds[rank] < exact
    assert bounds["mean-field"] < bounds["full"] - 1


def test_a_gaussian_posterior_is_found_exactly(sleep_pop):
    """A linear model's posteriors are Gaussian: the bound is the likelihood, and path gradients have no noise left."""
    fit = hx.fit(zoo.lines_full, sleep_pop, hx.VI(), progress=False)
    np.testing.assert_allclose(fit.variational.elbo[0], -875.96967223, atol=0.05)
    each = fit.variational.bounds(sleep_pop, draws=3)
    again = fit.variational.bounds(sleep_pop, draws=3, seed=1)
    # What is left is the optimiser's: its last steps are 2e-4 long, whatever the gradient.
    np.testing.assert_allclose(each, again, atol=0.05)
    exact = hx.evaluate(zoo.lines_full, sleep_pop, fit.params, hx.FOCE())
    sd = np.sqrt(np.diagonal(np.linalg.inv(exact.hessian), axis1=-2, axis2=-1))
    assert np.max(np.abs(fit.eta - exact.eta) / sd) < 0.05


@pytest.mark.parametrize("samples", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_path_gradients_have_the_same_mean(theo_pop, samples):
    """Both estimators of the guide's gradient, averaged over many draws: within four of their standard errors."""
    found = {}
    for gradient in ("path", "total"):
        vi = hx.VI(samples=samples, gradient=gradient)
        run = run_of(zoo.theophylline, theo_pop, vi)
        # Away from the optimum, where the gradient is not zero.
        guide = {**run.state.guide, "log_scale": run.state.guide["log_scale"] + 0.3}

        def one(key, run=run, guide=guide):
            from hierax.infer.vi import bound

            ones = jnp.ones(12)
            flat = jnp.asarray(run.job.flat)
            return bound(run.setting, run.state.population, guide, flat, theo_pop, run.design, ones, key)[2][
                "log_scale"
            ]

        draws = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 20_000)))
        found[gradient] = draws.mean(0), draws.std(0) / np.sqrt(len(draws))
    (path, one), (total, two) = found["path"], found["total"]
    assert np.all(np.abs(path - total) < 4.5 * np.hypot(one, two))


def test_a_subject_outside_the_batch_does_not_move(theo_pop):
    """Bitwise: neither its guide nor its optimiser's state."""
    run = run_of(zoo.theophylline, theo_pop, hx.VI(batch=3))
    rows = jnp.zeros((100, 3), int) + jnp.array([1, 4, 7])
    before = run.state
    flat = jnp.asarray(run.job.flat)
    after, *_ = run.function(before, jnp.full(100, 0.02), rows, flat, run.design, run.session.pop)
    others = np.setdiff1d(np.arange(12), [1, 4, 7])
    for old, new in zip(
        jax.tree.leaves((before.guide, before.moments[1])),
        jax.tree.leaves((after.guide, after.moments[1])),
        strict=True,
    ):
        assert np.array_equal(np.asarray(old)[others], np.asarray(new)[others])
        assert not np.array_equal(np.asarray(old)[[1, 4, 7]], np.asarray(new)[[1, 4, 7]])


def test_mini_batches_reach_the_same_optimum(theo_pop):
    fit = hx.fit(zoo.theophylline, theo_pop, hx.VI(batch=6, samples=8, steps=4000), progress=False)
    np.testing.assert_allclose(vector(fit.params), EXACT, rtol=0.03)


def test_the_same_seed_gives_the_same_result_and_a_resumed_run_too(theo_pop, tmp_path):
    vi = hx.VI(batch=6, steps=900)
    whole = hx.fit(zoo.theophylline, theo_pop, vi, progress=False)
    file = tmp_path / "vi.ckpt"
    with pytest.MonkeyPatch.context() as patch:
        count = iter(range(3))
        original = _Run.advance

        def interrupting(self, bar):
            if next(count, None) is None:
                raise KeyboardInterrupt
            original(self, bar)

        patch.setattr(_Run, "advance", interrupting)
        with pytest.warns(hx.HieraxWarning, match="interrupted"):
            part = hx.fit(zoo.theophylline, theo_pop, vi, progress=False, checkpoint=file)
    assert len(part.history) == 300
    resumed = hx.fit(zoo.theophylline, theo_pop, vi, progress=False, checkpoint=file)
    assert np.array_equal(resumed.flat, whole.flat)
    assert np.array_equal(resumed.eta, whole.eta)


def test_population_parameters_with_a_guide():
    """A conjugate model: the posterior of mu is normal with known mean and SD."""

    def model(pop):
        mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 0.7))
            hx.observe("dv", dist.Normal(mu + eta + 0 * pop.times, 0.5), pop)

    rng = np.random.default_rng(0)
    y = 1.0 + 0.7 * rng.normal(size=(8, 1)) + 0.5 * rng.normal(size=(8, 3))
    pop = hx.Population.from_subjects(hx.Subject(i + 1, None, [0.0, 1.0, 2.0], {"dv": r}) for i, r in enumerate(y))
    fit = hx.fit(model, pop, hx.VI(population="full", particles=8), progress=False)
    variance = 0.7**2 + 0.5**2 / 3
    precision = 8 / variance + 1 / 4
    table = fit.summary()
    np.testing.assert_allclose(table.loc["mu", "mean"], y.mean(1).sum() / variance / precision, atol=0.05)
    # A guide of mu beside guides of φ = mu + eta: the true posterior correlates them, so the guide's SD is too small.
    given = 1 / (8 / 0.7**2 + 1 / 4)
    np.testing.assert_allclose(table.loc["mu", "sd"], np.sqrt(given), rtol=0.15)


def test_an_amortised_guide_reads_subjects_it_has_not_seen(theo_pop):
    guide = hx.guides.Amortised(width=16)
    train, test = theo_pop[:9], theo_pop[9:]
    fit = hx.fit(zoo.theophylline, train, hx.VI(guide=guide, steps=600), progress=False)
    mean, covariance = fit.variational.encode(test)
    assert mean.shape == (3, 3)
    assert (np.linalg.eigvalsh(covariance) > 0).all()
    bounds = fit.variational.bounds(test)
    assert list(bounds.index) == list(test.ids)
    assert np.isfinite(bounds).all()
    other = hx.fit(zoo.theophylline, train, hx.VI(steps=300), progress=False)
    with pytest.raises(ValueError, match="only an amortised guide reads other subjects"):
        other.variational.bounds(theo_pop)


def test_slips_are_named(theo_pop):
    with pytest.raises(ValueError, match=r"VI\(guide='normal'\) is no guide"):
        hx.VI(guide="normal")
    with pytest.raises(ValueError, match="samples, particles, steps and batch of 1 or more"):
        hx.VI(samples=0)
    with pytest.raises(hx.EstimatorError, match="needs a prior for every population parameter"):
        hx.fit(zoo.theophylline, theo_pop, hx.VI(population="full"), progress=False)


def vi_design(times, seed):
    """One data set of the published comparison (Elmokadem): log-normal everything, 120 subjects."""
    rng = np.random.default_rng(seed)
    eta = rng.normal(size=(120, 3)) * np.array([0.3, 0.2, 0.4])
    cl, v, ka = 3 * np.exp(eta[:, 0]), 30 * np.exp(eta[:, 1]), 1.2 * np.exp(eta[:, 2])
    t = np.asarray(times)[None]
    k = (cl / v)[:, None]
    mean = 100 * ka[:, None] / v[:, None] / (ka[:, None] - k) * (np.exp(-k * t) - np.exp(-ka[:, None] * t))
    y = mean * np.exp(0.2 * rng.normal(size=mean.shape))
    subjects = [hx.Subject(i + 1, hx.Regimen(100), times, {"dv": row}) for i, row in enumerate(y)]
    return hx.Population.from_subjects(subjects)


def vi_model(pop):
    cl = numpyro.param("cl", 3.0, constraint=POSITIVE)
    v = numpyro.param("v", 30.0, constraint=POSITIVE)
    ka = numpyro.param("ka", 1.2, constraint=POSITIVE)
    omega = numpyro.param("omega", jnp.array([0.3, 0.2, 0.4]), constraint=POSITIVE)
    sigma = numpyro.param("sigma", 0.2, constraint=POSITIVE)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, omega).to_event(1))
        conc = hx.pk.one_compartment(
            pop, CL=cl * jnp.exp(eta[..., 0]), V=v * jnp.exp(eta[..., 1]), ka=ka * jnp.exp(eta[..., 2])
        )
        hx.observe("dv", dist.LogNormal(jnp.log(jnp.maximum(conc, 1e-12)), sigma), pop)


@pytest.mark.study
@pytest.mark.parametrize(
    ("times", "low", "high"), [((0.5, 1, 2, 4, 8, 24), 0.97, 1.03), ((1, 4, 24), 0.93, 1.07)], ids=["dense", "sparse"]
)
def test_the_known_bias_of_the_elbo_and_its_cure(times, low, high):
    """Mean SDs of random effects over the same 20 data sets, as multiples of SAEM's."""
    estimators = {
        "elbo": hx.VI(guide=hx.guides.Normal("mean-field"), steps=3000),
        "weighted": hx.VI(samples=64, steps=3000),
        "saem": hx.SAEM(),
    }
    omega = {name: [] for name in estimators}
    for seed in range(20):
        pop = vi_design(times, seed)
        for name, estimator in estimators.items():
            omega[name].append(hx.fit(vi_model, pop, estimator, progress=False).params["omega"])
    mean = {name: np.mean(values, axis=0) for name, values in omega.items()}
    print(mean)
    assert mean["elbo"][1] < 0.9 * mean["saem"][1]
    ratio = mean["weighted"] / mean["saem"]
    assert np.all((low <= ratio) & (ratio <= high)), ratio


@pytest.mark.study
def test_an_amortised_guide_is_as_good_as_one_of_each_subject():
    """Indirect response, 1 000 training subjects: bounds of 200 others, by the encoder and by guides of their own."""
    truth = {name: indirect.TRUTH[name] for name in ("Ka", "Kout", "Smax", "n", "Kin", "SC50")}
    truth |= {"omega": 0.3, "sigma": 0.1}

    def data(count, seed):
        pop = indirect.design(count, seed)
        drawn = hx.simulate(indirect.model(), pop, params=truth, seed=seed)
        return pop.with_dv(dv=drawn["dv"].values[0])

    model, train, test = indirect.model(), data(1000, 1), data(200, 2)
    vi = hx.VI(guide=hx.guides.Amortised(), batch=100, steps=4000, learning_rate=4e-3, automatic=False)
    fit = hx.fit(model, train, vi, progress=False)
    own = hx.fit(model, test, hx.VI(steps=3000), init=fit, fixed=list(fit.params), progress=False)
    gap = own.variational.bounds(test) - fit.variational.bounds(test)
    print(gap.describe())
    assert gap.mean() < 0.5
    # The network alone, which has seen too few subjects, is several nats worse.
    guide = hx.guides.Amortised(refine=0)
    setting = fit.variational.setting._replace(vi=dataclasses.replace(vi, guide=guide))
    alone = dataclasses.replace(fit.variational, setting=setting)
    assert alone.bounds(test).mean() < fit.variational.bounds(test).mean()


def test_refined_encodings_are_modes(theo_pop):
    """A hardly trained network, refined: Laplace's modes, and the inverse information as covariance."""
    vi = hx.VI(guide=hx.guides.Amortised(width=8, refine=12), steps=300)
    fit = hx.fit(zoo.theophylline, theo_pop[:9], vi, progress=False)
    mean, covariance = fit.variational.encode(theo_pop[9:])
    foce = hx.evaluate(zoo.theophylline, theo_pop[9:], fit.params, hx.FOCE())
    np.testing.assert_allclose(mean, foce.eta[foce.rows], atol=1e-4)
    information = foce.session.estimator.curvature(foce.program, foce.pop, foce.params, jnp.asarray(foce.eta))
    np.testing.assert_allclose(covariance, np.linalg.inv(np.asarray(information)[foce.rows]), rtol=1e-3)
    with pytest.raises(hx.EstimatorError, match=r"Amortised\(refine > 0\)"):
        hx.fit(_uniform_data, theo_pop, vi, progress=False)


def _uniform_data(pop):
    ka = numpyro.param("ka", 1.0, constraint=POSITIVE)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
        hx.observe("dv", dist.Uniform(-50.0, 50.0 + ka + 0 * eta + 0 * pop.times), pop)


def test_a_gradient_that_is_no_number_is_no_convergence():
    """The concentration is 0 at the dose, where there is no datum: log(0) has no slope, and nothing would move."""

    def model(pop):
        cl = numpyro.param("cl", 2.7, constraint=dist.constraints.positive)
        omega = numpyro.param("omega", 0.3, constraint=dist.constraints.positive)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, omega))
            conc = hx.pk.one_compartment(pop, CL=cl * jnp.exp(eta), V=32.0, ka=1.5)
            hx.observe("dv", dist.LogNormal(jnp.log(conc), 0.2), pop)

    blank = hx.Population.from_subjects(
        hx.Subject(k, regimen=hx.Regimen(300.0), times=[1.0, 4.0], observations={"dv": [5.0, 4.0]}) for k in range(3)
    )
    with pytest.warns(hx.HieraxWarning, match=r"but not its gradient.*jnp.where\(conc > 0"):
        fit = hx.fit(model, blank, hx.VI(steps=100), progress=False)
    assert fit.result is hx.Result.non_finite


def test_a_bound_that_ends_below_its_start_has_not_converged(theo_pop):
    """Steps far too long, from estimates that are good."""
    init = {"ka": 1.58, "cl": 2.75, "v": 31.6, "omega": [0.64, 0.27, 0.14], "sigma": 0.7}
    vi = hx.VI(steps=300, automatic=False, learning_rate=3.0)
    with pytest.warns(hx.HieraxWarning, match="below the"):
        fit = hx.fit(zoo.theophylline, theo_pop, vi, init=init, progress=False)
    assert fit.result is hx.Result.no_progress
    assert "Lower learning_rate" in fit.why
