"""The batched Newton search on functions whose minima are known."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import zoo

import hierax as hx
from hierax.infer.marginal.modes import find_modes


def solve(function, start, **options):
    starts = start if isinstance(start, tuple) else (start,)
    return jax.jit(lambda *starts: find_modes(function, starts, hx.Newton(**options)))(*map(jnp.asarray, starts))


def test_quadratics_of_all_scales_in_one_step():
    centre = np.random.default_rng(0).normal(size=(5, 3))
    scale = 10.0 ** np.array([-6, -3, 0, 3, 6])[:, None]
    out = solve(lambda e: 0.5 * (scale * (e - centre) ** 2).sum(-1), np.zeros((5, 3)))
    np.testing.assert_allclose(out.eta, centre, rtol=1e-9)
    assert (out.code == hx.Result.converged).all()


def test_nonlinear_modes_from_bad_starts():
    """Rosenbrock's valley, one start a subject, the minimum at (1, 1) each time."""
    starts = np.array([[-1.2, 1.0], [5.0, 5.0], [-10.0, 20.0], [0.0, 0.0], [1.0, 1.0]])
    # From (-10, 20) the whole valley has to be walked: 115 iterations.
    out = solve(lambda e: (1 - e[:, 0]) ** 2 + 100 * (e[:, 1] - e[:, 0] ** 2) ** 2, starts, max_iter=200)
    np.testing.assert_allclose(out.eta, 1.0, atol=1e-8)
    assert (out.code == hx.Result.converged).all()


def test_a_flat_direction_a_saddle_and_a_non_finite_start_disturb_no_other_subject():
    weight = jnp.array([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])

    def function(e):
        good = (weight * (e - 1.0) ** 2).sum(-1) + 0.1 * (weight * e**4).sum(-1)
        return jnp.where(jnp.arange(4) == 2, jnp.nan, good)

    out = solve(function, np.zeros((4, 2)))
    assert [hx.Result(int(code)).name for code in out.code] == [
        "converged",
        "not_positive_definite",
        "non_finite",
        "converged",
    ]
    alone = solve(lambda e: ((e - 1.0) ** 2).sum(-1) + 0.1 * (e**4).sum(-1), np.zeros((1, 2)))
    np.testing.assert_allclose(np.asarray(out.eta)[[0, 3]], np.repeat(alone.eta, 2, 0), rtol=1e-12)


def test_the_better_of_two_starts_is_taken_by_subject():
    def wells(e):
        return ((e**2 - 1) ** 2 + 0.3 * e).sum(-1)

    out = solve(wells, (np.full((2, 1), 1.2), np.array([[-0.9], [1.3]])))
    assert out.eta[0, 0] < 0 < out.eta[1, 0]


def test_the_iteration_limit_is_said():
    out = solve(lambda e: jnp.cosh(e).sum(-1), np.full((2, 1), 30.0), max_iter=3)
    assert (out.code == hx.Result.max_iterations).all()


def test_warm_starts_save_iterations(theo_pop, theo_fit):
    session = theo_fit.session
    cold = session.evaluate(theo_fit.flat)
    warm = session.evaluate(theo_fit.flat, cold.eta)
    assert int(warm.iterations) < int(cold.iterations)
    np.testing.assert_allclose(warm.eta, cold.eta, atol=1e-9)


def test_modes_are_stationary(theo_pop, theo_fit):
    program = hx.program(zoo.theophylline, theo_pop)
    gradient = jax.jit(jax.grad(lambda eta: program.log_density(theo_fit.params, eta).sum()))(theo_fit.eta)
    assert np.abs(gradient).max() < 1e-9


def test_ebe_labels(theo_pop, theo_fit):
    found = hx.ebe(zoo.theophylline, theo_pop, theo_fit.params)
    assert found["subject"].to_numpy().tolist() == list(range(1, 13))
    assert found["eta_name"].to_numpy().tolist() == ["eta[0]", "eta[1]", "eta[2]"]
    np.testing.assert_allclose(found["eta"], theo_fit.ebe["eta"], atol=1e-7)
    np.testing.assert_allclose(found["CL"], 2.7515 * np.exp(found["eta"].sel(eta_name="eta[1]")), rtol=1e-3)
    with pytest.raises(KeyError):
        found["nothing"]


def test_immense_curvature_converges_where_rounding_is_all_that_is_left():
    """Rounding of the coordinate alone keeps the decrement above its tolerance: curvature 1e13 times its square."""
    out = solve(lambda e: 0.5e13 * (jnp.sin(e[:, 0]) - 0.3) ** 2 + jnp.cosh(e[:, 1] - e[:, 0]), np.zeros((3, 2)))
    assert (out.code == hx.Result.converged).all()
    assert int(out.iterations) < 30
    np.testing.assert_allclose(out.eta, np.arcsin(0.3), atol=1e-13)


def test_damping_is_raised_without_evaluations():
    """From the top of a hill the Hessian is negative: one factorisation after another, and one evaluation."""
    out = solve(lambda e: (1e4 * jnp.cos(e) + 5e2 * e**2).sum(-1), np.full((2, 1), 0.1))
    assert (out.code == hx.Result.converged).all()
    # One a refusal would be 25.
    assert int(out.iterations) <= 15


def test_the_best_of_several_modes_is_found():
    """Two classes of subjects and weak data: most have a mode in each class, and the reference point is in one."""
    at = np.linspace(-1.5, 1.5, 13)
    pop = hx.Population.from_subjects(
        [hx.Subject(k + 1, times=[0.0], observations={"dv": [y]}) for k, y in enumerate(at)]
    )

    def model(pop):
        apart = numpyro.param("apart", 2.0)
        centres, shares = apart * jnp.array([-1.0, 1.0]), dist.Categorical(jnp.array([0.7, 0.3]))
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.MixtureSameFamily(shares, dist.Normal(centres, 0.2)))
            hx.observe("dv", dist.Normal(eta, 1.0), pop)

    found = np.asarray(hx.evaluate(model, pop, {"apart": 2.0}, hx.Laplace()).eta)[:, 0]
    grid = np.linspace(-4, 4, 8001)
    prior = np.logaddexp(np.log(0.7) - 0.5 * ((grid + 2) / 0.2) ** 2, np.log(0.3) - 0.5 * ((grid - 2) / 0.2) ** 2)
    best = grid[np.argmax(prior - 0.5 * (at[:, None] - grid) ** 2, axis=1)]
    assert best.min() < -1.5
    assert best.max() > 1.5
    np.testing.assert_allclose(found, best, atol=1e-3)
