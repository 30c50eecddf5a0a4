"""``solve_ode``: against closed forms and independent integrators, and what it says of mistakes."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.integrate
from flax import linen
from helpers import GRADIENT, central_difference
from numpyro import handlers
from numpyro.contrib.module import flax_module

import hierax as hx

TIGHT = hx.Grid(rtol=1e-11, floor=1e-6, method="dopri8")
# Relative to the peak: the bar for linear systems.
ODE = 1e-8
K, KA = 0.2, 0.7


def oral_field(t, y, p):
    absorbed = p["ka"] * y["depot"]
    return {"depot": -absorbed, "central": absorbed - p["k"] * y["central"]}


ORAL = {"depot": 0.0, "central": 0.0}
BOTH = {1: "depot", 2: "central"}


def close(found, expected, tolerance=ODE):
    expected = np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def simple(regimen, times, **options):
    return hx.Population.from_grid(regimen, times, n=1, **options)


def observed(pop, value):
    return np.asarray(value)[0][np.asarray(pop.records["evid"])[0] != 1]


# -- every solver ------------------------------------------------------------------------------------------------

SOLVERS = {
    "tsit5": hx.Grid(rtol=1e-10, floor=1e-5),
    "dopri8": TIGHT,
    "adaptive": hx.Adaptive(diffrax.Tsit5(), rtol=1e-11, atol=1e-11),
    "implicit": hx.Adaptive(rtol=1e-11, atol=1e-11, max_steps=4096),
    "exponential": hx.MatrixExponential(),
}


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_agrees_with_the_closed_form(solver):
    regimen = hx.Regimen(100, interval=6, count=3) + hx.Regimen(40, time=3, route=2, rate=10.0)
    pop = simple(regimen, [0.5, 2, 5, 7, 12, 13, 30])

    @jax.jit
    def solve(pop, k):
        p = {"ka": KA, "k": k}
        return hx.solve_ode(pop, oral_field, ORAL, p, doses=BOTH, lag={"depot": 0.4}, solver=SOLVERS[solver])

    expected = hx.pk.one_compartment(pop, k=K, V=1.0, ka=KA, lag={1: 0.4}, output="amounts")
    found = solve(pop, K)
    for name in ORAL:
        close(found[name], expected[name])


def test_initial_conditions_are_parameters_and_a_reset_restores_them():
    pop = simple(hx.Regimen(10) + hx.Regimen(reset=True, time=5), [1.0, 4, 6, 9])

    def response(pop, base):
        def field(t, y, p):
            return {"R": -p["k"] * (y["R"] - 3.0)}

        return hx.solve_ode(pop, field, {"R": base}, {"k": K}, doses={1: "R"}, solver=TIGHT)["R"]

    since = np.array([0.0, 1, 4, 0, 1, 4])
    added = np.array([10.0, 10, 10, 0, 0, 0])
    close(jax.jit(response)(pop, 1.0)[0], 3 + (1.0 - 3 + added) * np.exp(-K * since))
    slope = jax.jit(jax.jacfwd(response, argnums=1))(pop, 1.0)[0]
    close(slope, np.exp(-K * since))


def test_states_may_be_vectors_and_nested():
    pop = simple(hx.Regimen(10), [1.0, 4])

    def field(t, y, p):
        chain = y["body"]["chain"]
        before = jnp.concatenate([p["k"] * y["body"]["in"][None], p["rates"][:-1] * chain[:-1]])
        return {"body": {"in": -p["k"] * y["body"]["in"], "chain": before - p["rates"] * chain}}

    start = {"body": {"in": 0.0, "chain": jnp.zeros((1, 1, 3))}}
    args = {"k": 0.5, "rates": jnp.array([[[0.5, 0.5, 0.5]]])}
    out = jax.jit(lambda pop: hx.solve_ode(pop, field, start, args, doses={1: "body.in"}, solver=TIGHT))(pop)
    chain = out["body"]["chain"]
    assert chain.shape == (1, 3, 3)
    t = np.array([0.0, 1, 4])
    for stage in range(3):
        close(chain[0, :, stage], 10 * (0.5 * t) ** (stage + 1) * np.exp(-0.5 * t) / np.prod(range(1, stage + 2)))


@pytest.mark.parametrize("rule", ["linear", "nocb", "locf", "midpoint"])
def test_covariates_between_records(rule):
    """Against SciPy, piece by piece, with the infusion's end between two records."""
    times, values = np.array([0.0, 2.0, 5.0, 9.0]), np.array([0.1, 0.5, 0.2, 0.4])
    subject = hx.Subject(
        1, regimen=hx.Regimen(10, rate=2.5, route=1), times=times[1:], covariates={"K": (times, values)}
    )
    pop = hx.Population.from_subjects([subject], interpolation=rule)

    def field(t, y, p):
        return {"c": -p["k"] * y["c"] ** 1.2}

    @jax.jit
    def solve(pop):
        return hx.solve_ode(pop, field, {"c": 1.0}, {"k": pop.covariates["K"]}, doses={1: "c"}, solver=TIGHT)["c"]

    def rate(t, left, right):
        position = int(np.searchsorted(times, 0.5 * (left + right))) - 1
        low, high = values[position], values[position + 1]
        if rule == "linear":
            return low + (high - low) * (t - times[position]) / (times[position + 1] - times[position])
        middle = 0.5 * (times[position] + times[position + 1])
        return {"nocb": high, "locf": low, "midpoint": low if 0.5 * (left + right) < middle else high}[rule]

    cuts = np.unique(np.concatenate([times, [4.0], 0.5 * (times[1:] + times[:-1])]))
    y, out = 1.0, {0.0: 1.0}
    for left, right in zip(cuts[:-1], cuts[1:], strict=True):
        speed = 2.5 if right <= 4 else 0.0
        y = scipy.integrate.solve_ivp(
            lambda t, y, a=left, b=right, s=speed: -rate(t, a, b) * y**1.2 + s,
            (left, right),
            [y],
            rtol=1e-12,
            atol=1e-14,
            method="DOP853",
        ).y[0, -1]
        out[right] = y
    close(solve(pop)[0], [out[t] for t in np.asarray(pop.times)[0]])


# -- closed forms as forcing functions, transit chains -----------------------------------------------------------


def effect(t, y, p):
    return {"R": 1.0 + p["conc"](t) - 0.8 * y["R"]}


@pytest.mark.slow
@pytest.mark.parametrize("steady", [0, 1])
def test_a_closed_form_is_a_forcing_function(steady):
    """The same system as one ODE of all states; also at steady state, and with a lag that is a parameter."""
    regimen = hx.Regimen(10, interval=8, count=2, steady=steady) + hx.Regimen(20, time=5, route=2, rate=8.0)
    pop = simple(regimen, [0.3, 2, 5.5, 9, 20])
    start = 1.25

    def forced(pop, lag):
        conc = hx.pk.one_compartment(pop, k=K, V=2.0, ka=KA, lag={1: lag}, output="forcing")
        return hx.solve_ode(pop, effect, {"R": start}, {"conc": conc}, doses={}, solver=TIGHT)["R"]

    def whole(pop, lag):
        def field(t, y, p):
            return oral_field(t, y, p) | {"R": 1.0 + y["central"] / 2.0 - 0.8 * y["R"]}

        p = {"ka": KA, "k": K}
        return hx.solve_ode(pop, field, ORAL | {"R": start}, p, doses=BOTH, lag={1: lag}, solver=TIGHT)["R"]

    for function in (lambda f: f, lambda f: jax.jacfwd(f, argnums=1)):
        close(jax.jit(function(forced))(pop, 0.45), jax.jit(function(whole))(pop, 0.45))


def test_transit_absorption_is_a_chain_of_compartments():
    """A whole number of transit compartments is the chain itself; doses before it, with F and a lag."""
    n, mtt = 3, 2.0
    rate = (n + 1) / mtt
    pop = simple(hx.Regimen(10, interval=5, count=2), [0.2, 1, 2, 4.9, 5.5, 8, 15])

    def chain(t, y, p):
        flow = rate * jnp.concatenate([y["a"][None], y["chain"]])
        fed = flow[-1] - KA * y["depot"]
        return {
            "a": -flow[0],
            "chain": flow[:-1] - flow[1:],
            "depot": fed,
            "central": KA * y["depot"] - K * y["central"],
        }

    start = ORAL | {"a": 0.0, "chain": jnp.zeros((1, 1, n))}
    options = {"lag": 0.1, "bioavailability": 0.7}
    expected = jax.jit(lambda pop: hx.solve_ode(pop, chain, start, doses={1: "a"}, solver=TIGHT, **options))(pop)

    def gamma(pop, n):
        route = hx.transit(n, mtt, into="depot")
        return hx.solve_ode(pop, oral_field, ORAL, {"ka": KA, "k": K}, doses={1: route}, solver=TIGHT, **options)

    found = jax.jit(gamma)(pop, 3.0)
    for name in ORAL:
        close(found[name], expected[name], 1e-7)
    # A real number of compartments: the amount that has arrived in the end is the dose, whatever n.
    late = simple(hx.Regimen(10), [60.0])
    kept = {"depot": 0.0}

    def arrived(n):
        return hx.solve_ode(
            late, lambda t, y, p: {"depot": 0.0}, kept, doses={1: hx.transit(n, mtt)}, solver=hx.Grid(1e-9)
        )["depot"][0, -1]

    np.testing.assert_allclose(jax.jit(arrived)(2.37), 10.0, rtol=1e-7)
    assert abs(float(jax.jit(jax.grad(arrived))(2.37))) < 1e-5


def test_a_delayed_signal():
    """The outflow of a chain fed by a step is the gamma distribution function."""
    pop = simple(hx.Regimen(0.0, reset=True), [0.5, 2, 6])

    def field(t, y, p):
        return {"stages": hx.transit(4, 2.0).chain(1.0, y["stages"])}

    out = jax.jit(lambda pop: hx.solve_ode(pop, field, {"stages": jnp.zeros((1, 1, 4))}, solver=TIGHT))(pop)
    outflow = 4 / 2.0 * np.asarray(out["stages"])[0, :, -1]
    close(outflow, scipy.stats.gamma.cdf(np.asarray(pop.times)[0], a=4, scale=0.5))


# -- events that move --------------------------------------------------------------------------------------------


def test_a_dose_that_moves_across_observations_and_an_infusion_end_across_a_dose():
    """Values and gradients against the closed form, left and right of every crossing, and closely around it."""
    regimen = hx.Regimen(100, time=1) + hx.Regimen(60, time=2, route=2, duration="modelled") + hx.Regimen(30, time=6)
    pop = simple(regimen, [2.5, 4.0, 7.0, 12.0])

    def ode(pop, theta):
        lag, duration = theta
        p = {"ka": KA, "k": K}
        return hx.solve_ode(pop, oral_field, ORAL, p, doses=BOTH, lag={1: lag}, duration={2: duration}, solver=TIGHT)[
            "central"
        ]

    def closed(pop, theta):
        lag, duration = theta
        return hx.pk.one_compartment(pop, k=K, V=1.0, ka=KA, lag={1: lag}, duration={2: duration})

    value, slope = jax.jit(ode), jax.jit(jax.jacfwd(ode, argnums=1))
    right, right_slope = jax.jit(closed), jax.jit(jax.jacfwd(closed, argnums=1))
    # The first dose passes the observations at 2.5 and 4; the infusion's end passes the lagged dose at 6 + lag, and
    # the observation at 7.
    for lag in (0.3, 1.4999, 1.5001, 2.2, 2.9999, 3.0001):
        for duration in (2.0, 4.0 + lag - 1e-4, 4.0 + lag + 1e-4, 4.9999, 5.0001):
            theta = jnp.array([lag, duration])
            close(value(pop, theta), right(pop, theta))
            close(slope(pop, theta), right_slope(pop, theta))
    # At a crossing the value is the same from both sides.
    for theta, axis in (([1.5, 4.2], 0), ([0.5, 4.5], 1)):
        moved = [np.asarray(value(pop, jnp.array(theta) + side * 1e-9 * np.eye(2)[axis])) for side in (-1, 1)]
        np.testing.assert_allclose(moved[0], moved[1], atol=1e-6)


EVENTS = (
    hx.Regimen(100, route=1)
    + hx.Regimen(50, time=2, route=2, rate="modelled")
    + hx.Regimen(70, time=5, route=2, duration="modelled", count=2, interval=9)
    + hx.Regimen(30, time=20, route=1, interval=6, steady=1)
    + hx.Regimen(40, time=20, route=2, rate=5.0, interval=6, steady=2)
)
# lag, F, rate, duration, k, ka: no two boundaries coincide here.
POINT = np.array([0.45, 0.8, 9.0, 3.5, 0.2, 0.9])


@pytest.mark.slow
@pytest.mark.parametrize("linear", [True, False])
def test_gradients_and_hessians_through_events(linear):
    """Lag, F, rate, duration and steady states, linear and saturable, on a frozen grid."""
    pop = simple(EVENTS, [1.3, 4.1, 7.7, 20.2, 23.0, 31.0])
    grid = hx.Grid(1e-9, method="dopri8", steps=96)

    def value(theta, placed):
        lag, F, rate, duration, k, ka = theta

        def field(t, y, p):
            out = p["k"] * y["central"] / (1.0 if linear else 1.0 + 0.01 * y["central"])
            absorbed = p["ka"] * y["depot"]
            return {"depot": -absorbed, "central": absorbed - out}

        out = hx.solve_ode(
            placed, field, ORAL, {"k": k, "ka": ka}, doses=BOTH, lag=lag, bioavailability=F, rate=rate,
            duration=duration, solver=grid,
        )  # fmt: skip
        return sum(((index + 1) * jnp.log1p(amount)).sum() for index, amount in enumerate(out.values()))

    # The grid stays where it is while the parameters move: that is what a fit differentiates.
    with handlers.trace() as trace:
        value(jnp.asarray(POINT), pop)
    placed = grid.place(trace["ode"]["args"][0].frozen(), 96)
    pop = hx.Population(**{**vars(pop), "grids": {"ode": placed}})
    at = jax.jit(lambda theta: value(theta, pop))
    slope = jax.jit(jax.jacfwd(lambda theta: value(theta, pop)))
    gradient = np.asarray(slope(POINT))
    hessian = np.asarray(jax.jit(jax.jacfwd(jax.jacfwd(lambda theta: value(theta, pop))))(POINT))
    for index in range(len(POINT)):
        step = 1e-3 * POINT[index]
        difference = central_difference(lambda x: float(at(x)), POINT, index, step)
        assert abs(gradient[index] - difference) <= GRADIENT * np.abs(gradient).max()
        row = [central_difference(lambda x, j=j: float(slope(x)[j]), POINT, index, step) for j in range(len(POINT))]
        np.testing.assert_allclose(hessian[index], row, atol=GRADIENT * np.abs(hessian).max(), rtol=0)
    np.testing.assert_allclose(jax.jit(jax.grad(lambda theta: value(theta, pop)))(POINT), gradient, rtol=1e-9)


# -- steady states of systems that are not linear ----------------------------------------------------------------


def saturable(t, y, p):
    return {"central": -p["vmax"] * y["central"] / (p["km"] + y["central"]), "R": 1.0 + y["central"] - 0.5 * y["R"]}


@pytest.mark.slow
def test_the_steady_state_of_a_saturable_system_is_a_regimen_that_has_always_run():
    pop = simple(hx.Regimen(10, time=100, interval=8, steady=1), [101.0, 107.0])
    run = simple(hx.Regimen(10, time=-1100, interval=8, count=151), [101.0, 107.0])
    start, p = {"central": 0.0, "R": 2.0}, {"vmax": 3.0, "km": 5.0}

    def solve(pop, vmax):
        return hx.solve_ode(pop, saturable, start, p | {"vmax": vmax}, doses={1: "central"}, solver=TIGHT)

    expected = jax.jit(lambda pop, v: solve(pop, v))(run, 3.0)
    slopes = jax.jit(jax.jacfwd(solve, argnums=1))
    found, found_slope, run_slope = jax.jit(solve)(pop, 3.0), slopes(pop, 3.0), slopes(run, 3.0)
    for name in start:
        close(observed(pop, found[name]), observed(run, expected[name]))
        close(observed(pop, found_slope[name]), observed(run, run_slope[name]), 1e-7)


def failure(pop, field, y0, p=None, **options):
    with handlers.trace() as trace:
        hx.solve_ode(pop, field, y0, p, **options)
    return trace["ode"]["value"]


def test_what_happens_after_the_last_record_is_nobodys_failure():
    """The root of a state that runs out at t = 2 (it would be negative after) spoils only the subject that looks."""
    late = hx.Regimen(1) + hx.Regimen(1, time=50)
    subjects = [hx.Subject(1, late, [0.5, 1.0]), hx.Subject(2, late, [0.5, 4.0])]
    pop = hx.Population.from_subjects(subjects)
    out = failure(pop, lambda t, y, p: {"c": -jnp.sqrt(y["c"])}, {"c": 0.0}, doses={1: "c"})
    assert int(out.code[0]) == 0
    assert int(out.code[1]) != 0
    times, c = np.asarray(pop.times)[0], np.asarray(out.states["c"])[0]
    np.testing.assert_allclose(c[np.isin(times, [0.5, 1.0])], [(1 - 0.25) ** 2, 0.25], rtol=1e-5)
    assert np.isnan(c[times == 50]).all()


@pytest.mark.slow
def test_no_steady_state_is_no_number():
    """More than the system can eliminate, and a state that is never eliminated."""
    pop = simple(hx.Regimen(100, interval=8, steady=1), [1.0])
    out = failure(pop, saturable, {"central": 0.0, "R": 2.0}, {"vmax": 3.0, "km": 5.0}, doses={1: "central"})
    assert int(out.code[0]) == 3
    assert np.isnan(out.states["central"]).all()


# -- learned dynamics --------------------------------------------------------------------------------------------


class Net(linen.Module):
    out: int = 1
    width: int = 4

    @linen.compact
    def __call__(self, x):
        return linen.Dense(self.out)(jnp.tanh(linen.Dense(self.width)(x)))


def test_a_network_inside_the_vector_field_has_exact_gradients():
    pop = simple(hx.Regimen(5, interval=4, count=2), [1.0, 3, 6, 10])

    def model(pop):
        net = flax_module("net", Net(), input_shape=(1,))

        def field(t, y, p):
            return {"depot": -KA * y["depot"], "R": 1.0 + p["net"](y["depot"][None])[0] - 0.8 * y["R"]}

        start = {"depot": 0.0, "R": 1.25}
        y = hx.solve_ode(pop, field, start, shared={"net": net}, solver=hx.Grid(1e-9, method="dopri8"))
        return (y["R"] ** 2).sum()

    seeded = handlers.seed(model, 0)
    weights = handlers.trace(seeded).get_trace(pop)["net$params"]["value"]
    flat, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(leaf, float), weights))

    def value(flat):
        return handlers.substitute(seeded, data={"net$params": unravel(flat)})(pop)

    gradient = np.asarray(jax.jit(jax.grad(value))(flat))
    at = jax.jit(value)
    for index in (0, 5, len(flat) - 1):
        difference = central_difference(lambda x: float(at(x)), np.asarray(flat), index, 1e-3)
        # The grid is placed at every evaluation here: differences see its tolerance.
        assert abs(gradient[index] - difference) <= 1e-5 * np.abs(gradient).max()


# -- mistakes ----------------------------------------------------------------------------------------------------


def test_mistakes_are_named_before_anything_compiles():
    pop = hx.Population.from_grid(hx.Regimen(10), [1.0, 2.0], n=3)
    p = {"ka": KA, "k": K}

    def wrong(match, field=oral_field, y0=ORAL, p=p, error=ValueError, **options):
        with pytest.raises(error, match=match):
            hx.solve_ode(pop, field, y0, p, **options)

    wrong(r"Doses into CMT 1 go to the state 'depot', but the states are \['central'\].*doses=\{1: 'central'\}",
          lambda t, y, p: y, {"central": 0.0})  # fmt: skip
    wrong(r"Doses into CMT 2 go to the state 'nowhere', but the states are", doses={1: "depot", 2: "nowhere"})
    wrong(r"doses is 'depot', but must map compartments to states, e.g. doses=\{1: 'central'\}", doses="depot")
    wrong(r"Doses go into CMT 1, but doses=\{2: 'central'\} names no state for it", doses={2: "central"})
    wrong(
        r"args\['k'\] has shape \(3,\).*\(subject, 1\) = \(3, 1\).*Use `k\[:, None\]`", p={"ka": KA, "k": jnp.ones(3)}
    )
    wrong(r"args\['k'\] has shape \(3, 3\).*comes from \(subject, 1\) meeting", p={"ka": KA, "k": jnp.ones((3, 3))},
          )  # fmt: skip
    wrong(r"y0\['central'\] has shape \(2, 1\), but an initial state", y0=ORAL | {"central": jnp.ones((2, 1))})
    wrong(r"args\['net'\] is a function, but args are arrays by subject.*shared=", p=p | {"net": lambda x: x})
    wrong(r"The vector field returned .* but the state is .*'central', 'depot'", lambda t, y, p: {"depot": 0.0})
    wrong(r"derivative of 'central' has shape \(2,\), but the state of one subject has shape \(\)",
          lambda t, y, p: {"depot": 0.0, "central": jnp.zeros(2)})  # fmt: skip
    wrong(r"args and shared both have \['k'\]", shared={"k": 1.0})
    wrong(r"y0 has no states", y0={})

    def with_site(t, y, p):
        flax_module("net", Net(), input_shape=(1,))
        return y

    with handlers.seed(rng_seed=0):
        wrong(r"Site 'net\$params' \(param\) stands inside the vector field", with_site, error=hx.ModelError)
    with pytest.raises(ValueError, match="method='rk4'.*tsit5"):
        hx.Grid(method="rk4")
    with pytest.raises(ValueError, match="is a function of time inside a vector field"):
        hx.pk.one_compartment(pop, k=K, V=1.0, output="forcing")(1.0)


def test_a_linear_solver_refuses_what_is_not_linear():
    pop = simple(hx.Regimen(10), [1.0])
    options = {"doses": {1: "c"}, "solver": hx.MatrixExponential()}
    assert int(failure(pop, lambda t, y, p: {"c": -(y["c"] ** 2)}, {"c": 0.0}, **options).code[0]) == 4
    assert int(failure(pop, lambda t, y, p: {"c": -t * y["c"]}, {"c": 0.0}, **options).code[0]) == 4
    assert int(failure(pop, lambda t, y, p: {"c": -0.1 * y["c"]}, {"c": 0.0}, **options).code[0]) == 0


def response(solver, power=1.0):
    def model(pop):
        k = numpyro.param("k", 0.3, constraint=dist.constraints.positive)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 0.3))

            def field(t, y, p):
                return {"c": -p["k"] * p["scale"] * y["c"] ** power}

            args = {"k": k * jnp.exp(eta), "scale": pop.covariates["scale"]}
            y = hx.solve_ode(pop, field, {"c": 1.0}, args, doses={1: "c"}, solver=solver)
            hx.observe("dv", dist.Normal(y["c"], 1.0), pop)

    return model


def scaled(values):
    subjects = [
        hx.Subject(f"S{i}", hx.Regimen(10), [1.0, 4.0], {"dv": [5.0, 2.0]}, {"scale": v}) for i, v in enumerate(values)
    ]
    return hx.Population.from_subjects(subjects)


@pytest.mark.parametrize(
    ("solver", "power", "scales", "result", "text"),
    [
        (
            hx.Grid(),
            0.5,
            [1.0, 40.0],
            "solver_non_finite",
            r"subject S1, time .*right-hand side of the ODE is not finite",
        ),
        pytest.param(
            hx.Adaptive(diffrax.Tsit5(), max_steps=12),
            1.0,
            [1.0, 2000.0],
            "solver_max_steps",
            r"subject S1, time .*run out of steps.*Adaptive\(max_steps=\)",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_failed_solve_names_subject_time_and_remedy(solver, power, scales, result, text):
    pop = scaled(scales)
    with pytest.warns(hx.HieraxWarning, match=text):
        fit = hx.fit(response(solver, power), pop, hx.FOCE(), progress=False)
    assert fit.result is hx.Result.non_finite
    assert fit.subject_results.tolist()[1] == result
    assert "not finite" in str(fit.summary())


def test_a_stiff_system_is_said_to_be_stiff():
    with pytest.warns(hx.HieraxWarning, match=r"looks stiff: \d+ of the \d+ steps of subject S1.*hx.Adaptive"):
        hx.evaluate(response(hx.Grid()), scaled([1.0, 2000.0]), {}, hx.FOCE())


def test_two_solves_of_one_name_are_refused():
    def model(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            for _ in range(2):
                y = hx.solve_ode(pop, lambda t, y, p: {"c": -y["c"]}, {"c": 0.0}, doses={1: "c"})
            hx.observe("dv", dist.Normal(y["c"], 1.0), pop)

    with pytest.raises(hx.ModelError, match=r"Two solves are called 'ode'.*name='other'"):
        hx.check(model, scaled([1.0]), show=False)


def test_what_a_transit_chain_cannot_take_is_refused():
    for regimen in (hx.Regimen(10, rate=2.0), hx.Regimen(10, interval=8, steady=1)):
        pop = simple(regimen, [1.0])
        with pytest.raises(ValueError, match=r"CMT 1 go through a transit chain, but some are infusions"):
            hx.solve_ode(pop, oral_field, ORAL, {"ka": KA, "k": K}, doses={1: hx.transit(2.0, 1.0)})


@pytest.mark.slow
@pytest.mark.parametrize(
    "regimen", [hx.Regimen(100, interval=6, steady=1, rate=25.0), hx.Regimen(50, interval=6, steady=1)]
)
def test_a_forcing_at_steady_state_has_exact_derivatives_in_its_lag(regimen):
    pop = simple(regimen, [1.2, 3.0, 10.0])

    def forced(lag):
        conc = hx.pk.one_compartment(pop, k=K, V=2.0, lag=lag, output="forcing")
        return hx.solve_ode(pop, effect, {"R": 1.25}, {"conc": conc}, doses={}, solver=TIGHT)["R"]

    def whole(lag):
        def field(t, y, p):
            return {"c": -K * y["c"], "R": 1.0 + y["c"] / 2.0 - 0.8 * y["R"]}

        return hx.solve_ode(pop, field, {"c": 0.0, "R": 1.25}, doses={1: "c"}, lag=lag, solver=TIGHT)["R"]

    # 8 + 4 = 2 intervals: an infusion ends at the very record.
    for lag in (2.5, 8.0):
        close(jax.jit(jax.jacfwd(forced))(lag), jax.jit(jax.jacfwd(whole))(lag), 1e-7)


def test_a_kink_or_a_period_is_not_linear():
    pop = simple(hx.Regimen(100), [24.0, 48.0])
    options = {"doses": {1: "c"}, "solver": hx.MatrixExponential()}
    assert int(failure(pop, lambda t, y, p: {"c": -jnp.minimum(0.1 * y["c"], 3.0)}, {"c": 0.0}, **options).code[0]) == 4
    assert (
        int(failure(pop, lambda t, y, p: {"c": jnp.cos(t * jnp.pi / 12) - y["c"]}, {"c": 0.0}, **options).code[0]) == 4
    )
    # Large numbers are fine.
    pop = simple(hx.Regimen(1e9, rate=1e8), [5.0, 10.0])
    found = hx.solve_ode(pop, lambda t, y, p: {"c": -0.1 * y["c"]}, {"c": 0.0}, **options)["c"][0]
    close(found, 1e9 * (1 - np.exp(-0.1 * np.asarray(pop.times)[0])))
