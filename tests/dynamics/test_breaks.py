"""Known times at which a vector field jumps: steps end there, and what undeclared ones cost is said."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import hierax as hx

SLOW, FAST = 0.1, 0.5
TIMES = [1.0, 2.0, 3.0, 4.0, 6.0, 9.0, 12.0]
DOSE = {1: "central"}


def jumping(t, y, p):
    """Elimination is faster from a switch on."""
    return {"central": -jnp.where(t < p["switch"], SLOW, FAST) * y["central"]}


def exact(times, switch):
    return 100 * np.exp(-SLOW * np.minimum(times, switch) - FAST * np.maximum(times - switch, 0.0))


def population(n=1):
    return hx.Population.from_grid(hx.Regimen(100), TIMES, n=n)


def solve(pop, switch, breaks, **options):
    found = hx.solve_ode(pop, jumping, {"central": 0.0}, {"switch": switch}, doses=DOSE, breaks=breaks, **options)
    return found["central"]


@pytest.mark.parametrize("solver", [hx.Grid(), hx.Grid(1e-11, method="dopri8"), hx.MatrixExponential()])
def test_steps_end_at_declared_jumps(solver):
    pop = population()
    error = np.abs(solve(pop, 3.7, [3.7], solver=solver)[0] - exact(np.asarray(pop.times)[0], 3.7)).max() / 100
    assert error < {"MatrixExponential": 1e-14}.get(type(solver).__name__, 0.1 * getattr(solver, "rtol", 1))
    if solver == hx.Grid():
        undeclared = solve(pop, 3.7, (), solver=solver)[0]
        assert np.abs(undeclared - exact(np.asarray(pop.times)[0], 3.7)).max() / 100 > 1e-5


def test_breaks_by_subject_and_their_derivatives():
    """Each subject has switches of its own, as many as it has; outside of its history they are nothing."""
    pop = population(3)
    switch = jnp.array([[3.7], [5.2], [50.0]])
    breaks = jnp.concatenate([switch, jnp.array([[jnp.nan], [-3.0], [2.0]])], axis=1)
    tight = hx.Grid(1e-11, method="dopri8")

    @jax.jit
    def last(switch):
        return solve(pop, switch, jnp.concatenate([switch, breaks[:, 1:]], axis=1), solver=tight)[:, -1]

    np.testing.assert_allclose(last(switch), exact(12.0, np.asarray(switch)[:, 0]), rtol=1e-9)
    # d/ds of exp(-0.1 s - 0.5 (12 - s)) is 0.4 times it; in both modes, and once more.
    slope = (FAST - SLOW) * exact(12.0, np.asarray(switch)[:, 0]) * [1, 1, 0]
    np.testing.assert_allclose(np.diag(jax.jacfwd(last)(switch)[..., 0]), slope, rtol=1e-9)
    np.testing.assert_allclose(jax.grad(lambda s: last(s).sum())(switch)[:, 0], slope, rtol=1e-9)
    curvature = jax.hessian(lambda s: last(s).sum())(switch)[:, 0, :, 0]
    np.testing.assert_allclose(curvature, np.diag((FAST - SLOW) * slope), rtol=1e-8, atol=1e-12)


def test_breaks_hold_inside_the_interval_of_a_steady_state():
    """Elimination is fast from 3.7 h after each dose on; II = 12."""
    pop = hx.Population.from_grid(hx.Regimen(100, interval=12, steady=1), TIMES[:-1], n=1)
    with pytest.warns(hx.HieraxWarning, match="reads t, and is different at t and at t . II, at a steady-state dose"):
        found = solve(pop, 3.7, [3.7], solver=hx.Grid(1e-11, method="dopri8"))[0]
    left = exact(12.0, 3.7) / 100
    np.testing.assert_allclose(found, exact(np.asarray(pop.times)[0], 3.7) / (1 - left), rtol=1e-9)


def test_jumps_that_are_not_declared_are_said():
    pop = population()
    for function in (lambda t: jnp.where(t < 3.7, SLOW, FAST), lambda t: SLOW * (1 + jnp.floor(t / 3.7)), jnp.sign):
        with pytest.warns(hx.HieraxWarning, match=r"ODE 'ode' compares or rounds t .*breaks=times"):
            hx.solve_ode(
                pop, lambda t, y, p, f=function: {"central": -f(t) * y["central"]}, {"central": 0.0}, doses=DOSE
            )
    # Smooth in t, and comparisons of states: nothing to say. Warnings are errors in these tests. JAX asks of a softplus
    # whether it is NaN by comparing it with itself.
    for field in (
        lambda t, y, p: -jnp.sin(t) * y["central"],
        lambda t, y, p: -jnp.where(y["central"] > 50, 0.2, 0.1),
        lambda t, y, p: -jax.nn.softplus(t) * y["central"],
        lambda t, y, p: -jax.nn.gelu(t) * y["central"],
    ):
        hx.solve_ode(pop, lambda *a, f=field: {"central": f(*a)}, {"central": 0.0}, doses=DOSE)
    with pytest.raises(ValueError, match=r"breaks has shape \(2, 1\), but .* or \(subject, k\) = \(1, k\)"):
        solve(pop, 3.7, [[3.7], [4.0]])


def test_a_fit_says_that_a_field_jumps():
    def model(pop):
        fast = numpyro.param("fast", 0.5)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            field = lambda t, y, p: {"central": -jnp.where(t < 3.7, SLOW, fast) * y["central"]}  # noqa: E731
            y = hx.solve_ode(pop, field, {"central": 0.0}, doses=DOSE)
            hx.observe("dv", dist.Normal(y["central"], 1.0), pop)

    pop = hx.Population.from_subjects([hx.Subject(1, hx.Regimen(100), [1.0, 6.0], {"dv": [90.0, 20.0]})])
    with pytest.warns(hx.HieraxWarning, match="may jump inside a step of the solver"):
        hx.check(model, pop, show=False)
    with pytest.warns(hx.HieraxWarning, match="may jump inside a step of the solver"):
        hx.evaluate(model, pop, {}, hx.NaivePooled())


def test_a_fit_with_switches_of_the_data():
    """Each subject switches at a time of its own, which travels in the population."""
    switch = np.array([2.2, 3.7, 5.2, 6.9, 8.3])

    def model(pop):
        fast = numpyro.param("fast", 0.4, constraint=dist.constraints.positive)
        at = pop.data["switch"]
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 0.2))
            rate = fast * jnp.exp(eta)
            field = lambda t, y, p: {"central": -jnp.where(t < p["at"], SLOW, p["rate"]) * y["central"]}  # noqa: E731
            y = hx.solve_ode(pop, field, {"central": 0.0}, {"at": at, "rate": rate}, doses=DOSE, breaks=at)
            hx.observe("dv", dist.Normal(y["central"], 0.5), pop)

    times = np.array(TIMES)
    subjects = [hx.Subject(i, hx.Regimen(100), TIMES, {"dv": exact(times, at)}) for i, at in enumerate(switch)]
    pop = hx.Population.from_subjects(subjects).with_data(switch=switch[:, None])
    fit = hx.fit(model, pop, hx.FOCE(), progress=False)
    assert fit.result is hx.Result.converged
    assert fit.params["fast"] == pytest.approx(FAST, rel=1e-3)
    # The data are the closed form: what is left at the modes is shrinkage of η alone, none in the fixed part.
    np.testing.assert_allclose(fit.ebe["eta"].values, 0.0, atol=2e-3)
