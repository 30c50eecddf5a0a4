"""SAEM held to exact maximum likelihood, and to itself: seeds, interruption, padding, other distributions."""

import functools
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import zoo
from helpers import prepared
from zoo import POSITIVE

import hierax as hx
from hierax.infer.saem.roles import find_roles

# Exact maximum likelihood (AGQ with 17 nodes an axis, converged): ka, CL, V, their omegas, sigma; −2 log L.
EXACT = {
    False: ([1.5829, 2.7502, 31.622, 0.63643, 0.26517, 0.13596, 0.69591], 360.70071),
    True: ([1.5794, 2.7480, 31.626, 0.62823, 0.26599, 0.13375, 0.73798], 345.4352),
}


def vector(params):
    return np.array([params["ka"], params["cl"], params["v"], *params["omega"], params["sigma"]])


@pytest.fixture(scope="module")
def saem_fit(theo_pop):
    return hx.fit(zoo.theophylline, theo_pop, hx.SAEM(), progress=False)


@functools.cache
def exact_errors(without_zero):
    """Return standard errors by the Hessian of the likelihood by quadrature."""
    pop = zoo.theophylline_population(without_zero)
    return hx.fit(zoo.theophylline, pop, hx.AGQ(9), progress=False).covariance("hessian").se


def roles_of(model, pop):
    job = prepared(model, pop)
    names = np.array(job.layout.names())
    roles = find_roles(job.program, pop, job.layout, job.flat, job.free)
    return {kind: list(names[getattr(roles, kind)]) for kind in ("prior", "shift", "rest")}, roles


def test_roles_are_seen_from_the_program(theo_pop, sleep_pop):
    found, roles = roles_of(zoo.theophylline, theo_pop)
    assert found == {"prior": ["omega[0]", "omega[1]", "omega[2]"], "shift": ["cl", "ka", "v"], "rest": ["sigma"]}
    assert roles.common
    # cl moves the second effect, ka the first, v the third: each by one, on the log scale.
    np.testing.assert_allclose(roles.design[:, 0], np.eye(3)[[1, 0, 2]], atol=1e-6)
    found, roles = roles_of(zoo.lines_full, sleep_pop)
    assert found["shift"] == ["beta[0]", "beta[1]"]
    assert found["prior"] == ["chol(Omega)[1,0]", "log chol(Omega)[0,0]", "log chol(Omega)[1,1]"]


def covariate_model(pop):
    cl = numpyro.param("cl", 2.7, constraint=POSITIVE)
    slope = numpyro.param("slope", 0.1)
    v = numpyro.param("v", 32.0, constraint=POSITIVE)
    ka = numpyro.param("ka", 1.5, constraint=POSITIVE)
    omega = numpyro.param("omega", jnp.array([0.3, 0.2]), constraint=POSITIVE)
    sigma = numpyro.param("sigma", 0.7, constraint=POSITIVE)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        # The typical clearance is written into the prior, the volume into the data's density.
        log_cl = numpyro.sample("log_cl", dist.Normal(jnp.log(cl) + slope * (pop.covariates["WT"] / 70 - 1), omega[0]))
        eta = numpyro.sample("eta_v", dist.Normal(0.0, omega[1]))
        conc = hx.pk.one_compartment(pop, CL=jnp.exp(log_cl), V=v * jnp.exp(eta), ka=ka)
        hx.observe("dv", dist.Normal(conc, sigma), pop)


def test_roles_with_covariates_and_centred_effects(theo_pop):
    found, roles = roles_of(covariate_model, theo_pop)
    assert found["prior"] == ["cl", "omega[0]", "omega[1]", "slope"]
    assert found["shift"] == ["v"]
    assert found["rest"] == ["ka", "sigma"]
    assert not roles.common


def test_a_covariate_in_the_data_density_shifts_by_its_value(theo_pop):
    def model(pop):
        cl = numpyro.param("cl", 2.7, constraint=POSITIVE)
        slope = numpyro.param("slope", 0.1)
        omega = numpyro.param("omega", 0.3, constraint=POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, omega))
            conc = hx.pk.one_compartment(
                pop, CL=cl * jnp.exp(eta + slope * jnp.log(pop.covariates["WT"] / 70)), V=32.0, ka=1.5
            )
            hx.observe("dv", dist.Normal(conc, 0.7), pop)

    found, roles = roles_of(model, theo_pop)
    assert found["shift"] == ["cl", "slope"]
    weight = np.log(np.asarray(theo_pop.covariates["WT"])[:, 0] / 70)
    np.testing.assert_allclose(roles.design[1, :, 0], weight, atol=1e-6)


@pytest.mark.parametrize(
    ("without_zero", "seed"),
    [(False, 0)] + [pytest.param(w, s, marks=pytest.mark.slow) for w in (False, True) for s in range(5) if w or s],
)
def test_theophylline_is_exact_maximum_likelihood(without_zero, seed):
    pop = zoo.theophylline_population(without_zero)
    fit = hx.fit(zoo.theophylline, pop, hx.SAEM(), progress=False, seed=seed)
    assert fit.result is hx.Result.converged
    expected, objective = EXACT[without_zero]
    np.testing.assert_allclose(vector(fit.params), expected, rtol=0.015)
    exact = hx.evaluate(zoo.theophylline, pop, fit.params, hx.AGQ(17))
    np.testing.assert_allclose(-2 * exact.log_likelihood, objective, atol=0.1)
    # Louis' formula over draws: noise of about 2 %.
    errors, expected = fit.covariance(), exact_errors(without_zero)
    assert errors.kind == "louis"
    assert list(errors.se.index) == list(expected.index)
    np.testing.assert_allclose(errors.se, expected, rtol=0.1)


def test_conditional_draws_have_the_exact_moments(saem_fit):
    """Against the posterior by quadrature: a tensor grid in two coordinates around each mode, and the third."""
    draws = saem_fit.conditional(4000)["eta"].stack(sample=("chain", "draw")).transpose("sample", "subject", "eta_name")
    values = draws.values
    assert values.shape == (4000, 12, 3)
    nodes = np.stack(np.meshgrid(*[np.linspace(-5, 5, 21)] * 3, indexing="ij"), -1).reshape(-1, 3)
    program = saem_fit.program
    half = np.linalg.cholesky(np.linalg.inv(saem_fit.hessian))
    points = saem_fit.eta[None] + np.einsum("nij,mj->mni", half, nodes)
    density = jax.jit(jax.vmap(lambda eta: program.log_density(saem_fit.pop, saem_fit.params, eta)))
    logs = np.asarray(density(jnp.asarray(points)))
    weights = np.exp(logs - logs.max(0))
    weights /= weights.sum(0)
    mean = np.einsum("mn,mni->ni", weights, points)
    sd = np.sqrt(np.einsum("mn,mni->ni", weights, (points - mean) ** 2))
    # Every fifth state of the chains is kept: about 1000 independent draws, so 0.03 SD of a mean and 2 % of an SD.
    assert np.abs((values.mean(0) - mean) / sd).max() < 0.15
    np.testing.assert_allclose(values.std(0), sd, rtol=0.1)


@pytest.mark.parametrize(
    ("model", "exact"),
    [
        (zoo.lines_full, -875.96967223),
        pytest.param(zoo.lines_diagonal, -876.00162757, marks=pytest.mark.slow),
    ],
)
def test_sleepstudy(sleep_pop, model, exact):
    """A linear model, where every approximation of the likelihood is exact."""
    fit = hx.fit(model, sleep_pop, hx.SAEM(), progress=False)
    np.testing.assert_allclose(fit.log_likelihood, exact, atol=0.01)


def test_the_same_seed_gives_the_same_result_and_a_resumed_run_too(theo_pop, tmp_path, saem_fit):
    again = hx.fit(zoo.theophylline, theo_pop, hx.SAEM(), progress=False)
    assert np.array_equal(again.flat, saem_fit.flat)
    file = tmp_path / "saem.ckpt"
    stop_after = iter(range(3))

    def interrupt(*_):
        if next(stop_after, None) is None:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        from hierax.infer.saem.run import _Run

        original = _Run.advance
        patch.setattr(_Run, "advance", lambda self, bar: (original(self, bar), interrupt())[0])
        with pytest.warns(hx.HieraxWarning, match="interrupted"):
            part = hx.fit(zoo.theophylline, theo_pop, hx.SAEM(), progress=False, checkpoint=file)
    assert part.result is hx.Result.interrupted
    assert 0 < len(part.history) < len(saem_fit.history)
    resumed = hx.fit(zoo.theophylline, theo_pop, hx.SAEM(), progress=False, checkpoint=file)
    assert np.array_equal(resumed.flat, saem_fit.flat)
    assert len(resumed.history) == len(saem_fit.history)
    with pytest.raises(ValueError, match=r"another fit's, because these differ: seed"):
        hx.fit(zoo.theophylline, theo_pop, hx.SAEM(), progress=False, checkpoint=file, seed=1)


def test_save_and_load(theo_pop, saem_fit, tmp_path):
    saem_fit.save(tmp_path / "fit.zip")
    loaded = hx.load_fit(tmp_path / "fit.zip", zoo.theophylline, theo_pop)
    assert loaded.objective_label == saem_fit.objective_label
    assert loaded.usual_covariance == "louis"
    assert np.array_equal(loaded.conditional(40)["eta"], saem_fit.conditional(40)["eta"])


@pytest.mark.slow
def test_padding_changes_nothing(theo_pop, saem_fit):
    """Other shapes draw other random numbers, so the estimates agree as two seeds do."""
    padded = theo_pop.pad(n_subjects=16, n_records=14)
    fit = hx.fit(zoo.theophylline, padded, hx.SAEM(), progress=False)
    np.testing.assert_allclose(vector(fit.params), vector(saem_fit.params), rtol=0.03)


def test_nothing_is_compiled_again_for_other_data(theo_pop):
    quick = hx.SAEM(exploratory=20, smoothing=20)
    hx.fit(zoo.theophylline, theo_pop, quick, progress=False)
    cache = hx.program(zoo.theophylline, theo_pop).program.built
    compiled = {key: value for key, value in cache.items() if key[0] == "saem"}
    before = {key: value._cache_size() for key, value in compiled.items()}
    other = theo_pop.with_dv(dv=np.where(theo_pop.mask["dv"], 1.1 * np.asarray(theo_pop.dv["dv"]), np.nan))
    hx.fit(zoo.theophylline, other, quick, progress=False, seed=4)
    assert {key: cache[key]._cache_size() for key in compiled} == before
    assert sum(key[0] == "saem" for key in cache) == len(compiled)


@pytest.mark.slow
def test_effects_that_are_not_gaussian(theo_pop):
    """The same model with log-normal effects instead of normal ones of the log: no closed form, the same likelihood."""

    def model(pop):
        ka = numpyro.param("ka", 1.5, constraint=POSITIVE)
        v = numpyro.param("v", 32.0, constraint=POSITIVE)
        df = 8.0
        omega = numpyro.param("omega", 0.3, constraint=POSITIVE)
        cl = numpyro.param("cl", 2.7, constraint=POSITIVE)
        sigma = numpyro.param("sigma", 0.7, constraint=POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.StudentT(df, 0.0, omega))
            conc = hx.pk.one_compartment(pop, CL=cl * jnp.exp(eta), V=v, ka=ka)
            hx.observe("dv", dist.Normal(conc, sigma), pop)

    found, _ = roles_of(model, theo_pop)
    assert not found["prior"]
    assert not found["shift"]
    fit = hx.fit(model, theo_pop, hx.SAEM(), progress=False)
    exact = hx.fit(model, theo_pop, hx.AGQ(15, hessian="full"), progress=False)
    for name, value in exact.params.items():
        np.testing.assert_allclose(fit.params[name], value, rtol=0.02, err_msg=name)


@pytest.mark.slow
def test_langevin_moves_leave_the_answer_alone(theo_pop):
    kernels = hx.Kernels(population=0, component=1, block=0, gradient=2)
    fit = hx.fit(zoo.theophylline, theo_pop, hx.SAEM(kernels=kernels), progress=False)
    np.testing.assert_allclose(vector(fit.params), EXACT[False][0], rtol=0.02)
    assert 0.3 < fit.history["accepted_gradient"].iloc[-1] < 0.9


def test_what_saem_cannot_do_is_said(theo_pop):
    def fixed(pop):
        sigma = numpyro.param("sigma", 1.0, constraint=POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            hx.observe("dv", dist.Normal(jnp.zeros_like(pop.times), sigma), pop)

    with pytest.raises(hx.EstimatorError, match="SAEM simulates random effects, but the program has none"):
        hx.fit(fixed, theo_pop, hx.SAEM(), progress=False)
    with pytest.raises(ValueError, match="starts=3 is for maximised approximations"):
        hx.fit(zoo.theophylline, theo_pop, hx.SAEM(), starts=3)
    with pytest.raises(ValueError, match=r"SAEM\(chains=0\) must be 1 or more"):
        hx.SAEM(chains=0)
    with pytest.raises(ValueError, match=r"SAEM\(updates=0\) must be 1 or more"):
        hx.SAEM(updates=0)
    with pytest.raises(ValueError, match="makes no moves"):
        hx.Kernels(0, 0, 0, 0)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_importance_sampling_em_is_exact_maximum_likelihood(theo_pop, seed):
    fit = hx.fit(zoo.theophylline, theo_pop, hx.ImportanceEM(), progress=False, seed=seed)
    np.testing.assert_allclose(vector(fit.params), EXACT[False][0], rtol=0.015)
    # Its history is a likelihood: the last one is that of the estimates, with the noise of 300 samples a subject.
    np.testing.assert_allclose(-2 * fit.history["complete"].iloc[-10:].mean(), EXACT[False][1], atol=0.3)
    with pytest.raises(ValueError, match="samples=1 must be a whole number of 2 or more"):
        hx.ImportanceEM(samples=1)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_quasi_random_em_is_exact_maximum_likelihood(theo_pop, seed):
    """Fewer points than importance-sampling EM has samples, and a quarter of its noise."""
    fit = hx.fit(zoo.theophylline, theo_pop, hx.QRPEM(), progress=False, seed=seed)
    np.testing.assert_allclose(vector(fit.params), EXACT[False][0], rtol=0.004)
    values = -2 * fit.history["complete"].iloc[-10:]
    # The SD of the log likelihood by 256 points was 0.05 here; that by 300 random samples 0.13 to 0.22.
    np.testing.assert_allclose(values.mean(), EXACT[False][1], atol=0.06)
    assert values.std() < 0.1


def test_quasi_random_em_refuses_points_that_are_not_balanced():
    with pytest.raises(ValueError, match=r"QRPEM\(samples=300\) must be a power of 2"):
        hx.QRPEM(samples=300)
    with pytest.raises(ValueError, match="df=0 must be a number above 0"):
        hx.QRPEM(df=0)
