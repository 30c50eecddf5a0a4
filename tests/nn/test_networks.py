"""Networks and their heads: shapes that hold for any weights; weights as individual parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from zoo import POSITIVE

import hierax as hx

nn = hx.nn


def weights(module, inputs, seed=0, spread=1.0):
    """Return weights far from their start: heads hold for all."""
    start = module.init(jax.random.key(seed), jnp.ones(inputs))["params"]
    leaves, structure = jax.tree.flatten(start)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    moved = [leaf + spread * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return start, jax.tree.unflatten(structure, moved)


def inputs(size, count=200):
    return 2.0 * jax.random.normal(jax.random.key(9), (count, size))


@pytest.mark.parametrize("activation", ["softplus", "tanh", "swish", "sigmoid"])
def test_mlp_is_near_zero_at_first_and_smooth(activation):
    net = nn.MLP(2, width=16, depth=2, activation=activation)
    start, far = weights(net, 3)
    assert net.apply({"params": start}, inputs(3)).shape == (200, 2)
    assert float(jnp.abs(net.apply({"params": start}, inputs(3))).max()) < 1.0
    hessian = jax.hessian(lambda x: net.apply({"params": far}, x).sum())(jnp.ones(3))
    assert np.isfinite(hessian).all()
    assert np.abs(hessian).max() > 1e-3


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match=r"activation='relu' is not known. Use one of"):
        nn.MLP(activation="relu").init(jax.random.key(0), jnp.ones(1))


@pytest.mark.parametrize("seed", range(3))
def test_heads_hold_for_any_weights(seed):
    x = inputs(3)
    _, positive = weights(head := nn.Positive(nn.MLP(), typical=2.0), 3, seed)
    assert (head.apply({"params": positive}, x) > 0).all()
    _, bounded = weights(head := nn.Bounded(nn.MLP(), -1.0, 3.0), 3, seed)
    values = head.apply({"params": bounded}, x)
    assert (values >= -1).all()
    assert (values <= 3).all()
    _, zero = weights(head := nn.ZeroAtZero(nn.MLP(), inputs=(0, 2)), 3, seed)
    np.testing.assert_allclose(head.apply({"params": zero}, x * jnp.array([0.0, 1.0, 0.0])), 0.0, atol=1e-14)
    assert np.abs(head.apply({"params": zero}, x)).max() > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_saturating_effects_start_at_zero_and_have_a_limit(seed):
    head = nn.Saturating(nn.MLP(), half=2.0, typical=1.5)
    start, far = weights(head, 3, seed)
    z = inputs(2)

    def effect(params, c):
        return head.apply({"params": params}, jnp.concatenate([jnp.full((200, 1), c), z], axis=-1))

    np.testing.assert_array_equal(effect(far, 0.0), 0.0)
    assert (effect(far, 0.3) > 0).all()
    np.testing.assert_allclose(effect(far, 1e9), effect(far, 1e10), rtol=1e-6)
    # Before training: about typical·c/(half + c), and no random effect without influence.
    at_zero = head.apply({"params": start}, jnp.array([2.0, 0.0, 0.0]))
    np.testing.assert_allclose(at_zero, 0.75, rtol=0.3)
    slope = jax.grad(lambda x: head.apply({"params": start}, x).sum())(jnp.array([2.0, 0.0, 0.0]))
    assert (jnp.abs(slope[1:]) > 0.01).all()


def test_the_log_of_an_effect_is_linear_in_what_is_not_the_concentration():
    head = nn.LogLinear(nn.MLP(outputs=3), half=2.0, typical=1.5)
    _, far = weights(head, 3, 0)
    z = inputs(2)

    def log_effect(c, z):
        return jnp.log(head.apply({"params": far}, jnp.concatenate([jnp.full((len(z), 1), c), z], axis=-1)))

    middle = log_effect(0.7, 0.0 * z)
    np.testing.assert_allclose(log_effect(0.7, 2 * z) - middle, 2 * (log_effect(0.7, z) - middle), atol=1e-10)
    # What z does depends on the concentration, and there is an effect's limit.
    assert (
        np.abs(log_effect(0.1, z) - log_effect(0.1, 0 * z) - log_effect(5.0, z) + log_effect(5.0, 0 * z)).max() > 0.05
    )
    np.testing.assert_allclose(log_effect(1e9, z), log_effect(1e10, z), rtol=1e-6)
    at_zero = head.apply({"params": far}, jnp.array([[0.0, 1.0, 2.0]]))
    np.testing.assert_array_equal(at_zero, 0.0)
    with pytest.raises(ValueError, match="has 2 outputs, but it needs 3"):
        nn.LogLinear(nn.MLP(outputs=2)).init(jax.random.key(0), jnp.ones(3))


def test_networks_reduce_embeddings_and_penalties_spare_layers():
    network = nn.MLP(outputs=2, width=4, reduce=3)
    params = network.init(jax.random.key(0), jnp.ones(50))["params"]
    assert params["reduce"]["kernel"].shape == (50, 3)
    assert params["hidden_0"]["kernel"].shape == (3, 4)
    spared = nn.l2(0.5, without="inner")
    assert spared("layer_0.Autoregressive_0.inner_0.kernel", (2, 16)) is None
    assert spared("layer_0.Autoregressive_0.last.kernel", (16, 4)) is not None


@pytest.mark.parametrize("seed", range(3))
def test_monotone_networks_rise_fall_and_are_free(seed):
    head = nn.Monotone(increasing=(0,), decreasing=(2,), depth=2)
    _, far = weights(head, 3, seed)
    slopes = jax.vmap(jax.grad(lambda x: head.apply({"params": far}, x).sum()))(inputs(3))
    assert (slopes[:, 0] >= 0).all()
    assert slopes[:, 0].max() > 1e-3
    assert (slopes[:, 2] <= 0).all()
    assert slopes[:, 2].min() < -1e-3


def test_a_monotone_network_fits_a_curve_that_is_convex_and_then_concave():
    import optax

    head, x = nn.Monotone(width=8), jnp.linspace(0, 4, 60)[:, None]
    target = x**3 / (1.5**3 + x**3)
    params = head.init(jax.random.key(0), x)["params"]
    optimiser = optax.adam(0.02)

    def loss(params):
        return jnp.mean((head.apply({"params": params}, x) - target) ** 2)

    @jax.jit
    def step(carry, _):
        params, state = carry
        updates, state = optimiser.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimiser.init(params)), length=3000)
    assert float(jnp.sqrt(loss(params))) < 0.02


def test_monotone_inputs_must_exist():
    with pytest.raises(ValueError, match=r"names the inputs \(3,\), but the network has inputs 0 to 1"):
        nn.Monotone(increasing=(3,)).init(jax.random.key(0), jnp.ones(2))


def lines(which):
    """Every subject's curve is a network of time, whose weights are its own."""

    def model(pop):
        sigma = numpyro.param("sigma", 0.3, constraint=POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            net = nn.individualise("curve", nn.MLP(width=3), input_shape=(1,), which=which)
            curve = numpyro.deterministic("curve_at", net(pop.times[..., None])[..., 0])
            hx.observe("dv", dist.Normal(curve, sigma), pop)

    return model


def times(n=20, seed=0):
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 2, 9)
    curves = [1 + rng.normal(0, 0.5) + rng.normal(1, 0.3) * time for _ in range(n)]
    return hx.Population.from_subjects(
        [hx.Subject(k + 1, times=time, observations={"dv": y + rng.normal(0, 0.1, 9)}) for k, y in enumerate(curves)]
    )


@pytest.mark.parametrize(
    ("which", "size"),
    [
        ("last", 4),
        pytest.param(2, 2, marks=pytest.mark.slow),
        pytest.param("all", 10, marks=pytest.mark.slow),
        pytest.param("hidden_0", 6, marks=pytest.mark.slow),
    ],
)
def test_individual_weights_are_random_effects(which, size):
    """The marginal likelihood with few of them is far above that without any."""
    pop = times()
    program = hx.program(lines(which), pop)
    assert len(program.effect_names) == size
    start = hx.evaluate(lines(which), pop, program.program.start(), hx.FOCE())
    assert np.isfinite(start.log_likelihood)
    drawn = hx.simulate(lines(which), pop, seed=1)
    assert np.std(drawn["curve_at"].values[0], axis=0).max() > 1e-3


@pytest.mark.slow
def test_individual_last_layer_fits_lines_by_foce():
    """To a fifth of a standard error: of the weights and their random effects some are hardly identified."""
    search = hx.QuasiNewton(gtol=0.2)
    priors = {"curve$params": dist.Normal(0.0, 2.0), "curve_omega": dist.HalfNormal(1.0)}
    fit = hx.fit(lines("last"), times(), hx.FOCE(optimiser=search), priors=priors, use_priors=True, progress=False)
    assert float(fit.params["sigma"]) < 0.13


def test_a_layer_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"which='middle'\) names no layer of the network, which has \['hidden_0', 'l"):
        hx.program(lines("middle"), times())
    with pytest.raises(ValueError, match=r"which=0\) needs 1 direction or more"):
        hx.program(lines(0), times())


@pytest.mark.slow
def test_weights_in_a_vector_field_are_the_subjects_own():
    """dy/dt = net(t) by solve_ode against the network's integral by quadrature."""
    pop = times(4)

    def model(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            net = nn.individualise("rate", nn.MLP(width=3), input_shape=(1,), scale=0.5)

            def field(t, y, args):
                return {"y": args["net"](t[None], args["w"])[0]}

            y = hx.solve_ode(pop, field, {"y": 0.0}, {"w": net.eta}, shared={"net": net.at})
            nodes, shares = np.polynomial.legendre.leggauss(20)
            at = pop.times[..., None] * (nodes + 1) / 2
            rates = net(at.reshape(pop.n_subjects, -1, 1)).reshape(at.shape)
            numpyro.deterministic("exact", (rates * shares).sum(-1) * pop.times / 2)
            numpyro.deterministic("solved", y["y"])
            hx.observe("dv", dist.Normal(y["y"], 1.0), pop)

    drawn = hx.simulate(model, pop, seed=3)
    np.testing.assert_allclose(drawn["solved"], drawn["exact"], atol=1e-5)
    assert np.ptp(drawn["exact"].values[0, :, -1]) > 0.01


def curve(pop):
    """One network for all subjects, known up to normal noise: its posterior band is exact for a linear one."""
    net = nn.network("line", nn.MLP(width=1, depth=0), input_shape=(1,))
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        level = numpyro.sample("level", dist.Normal(0.0, 0.5))
        hx.observe("dv", dist.Normal(level + net(pop.times[..., None])[..., 0], 0.1), pop)


@pytest.fixture(scope="module")
def curve_fit():
    return hx.fit(curve, times(), hx.FOCE(), progress=False)


def test_the_band_of_a_linear_network_is_that_of_generalised_least_squares(curve_fit):
    pop = curve_fit.pop
    at = np.array([[0.0], [1.0], [4.0]])
    found = hx.predict_function(curve_fit, "line", at, level=0.9, draws=20000, prior_sd=1e3)
    rows = np.stack([np.ones(9), np.linspace(0, 2, 9)], 1)
    marginal = 0.01 * np.eye(9) + 0.25
    precision = len(pop) * rows.T @ np.linalg.solve(marginal, rows)
    total = sum(rows.T @ np.linalg.solve(marginal, dv) for dv in np.asarray(pop.dv["dv"]))
    look = np.stack([np.ones(3), at[:, 0]], 1)
    np.testing.assert_allclose(found["estimate"][:, 0], look @ np.linalg.solve(precision, total), atol=1e-5)
    sd = np.sqrt(np.einsum("pi,ij,pj->p", look, np.linalg.inv(precision), look))
    # 20 000 draws: an SD within 1 %, a 5 % quantile within 1.5 %.
    np.testing.assert_allclose(found["functions"].std(("chain", "draw"))[:, 0], sd, rtol=0.02)
    np.testing.assert_allclose(found["upper"][:, 0] - found["estimate"][:, 0], 1.645 * sd, rtol=0.04)


@pytest.mark.slow
def test_a_band_by_nuts_is_the_same(curve_fit):
    priors = {"line$params": dist.Normal(0.0, 10.0)}
    fit = hx.fit(curve, times(), hx.NUTS(warmup=300, draws=500, chains=2), priors=priors, progress=False)
    at = np.array([[0.0], [2.0]])
    by_draws = hx.predict_function(fit, "line", at, draws=1000)
    by_laplace = hx.predict_function(curve_fit, "line", at)
    assert by_draws.sizes["chain"] == 2
    spread = float(by_laplace["functions"].std())
    np.testing.assert_allclose(by_draws["lower"], by_laplace["lower"], atol=0.3 * spread)
    np.testing.assert_allclose(by_draws["upper"], by_laplace["upper"], atol=0.3 * spread)


def test_what_predict_function_refuses(curve_fit):
    at = np.zeros((1, 1))
    with pytest.raises(ValueError, match=r"no network 'other'. It has \['line'\]"):
        hx.predict_function(curve_fit, "other", at)
    with pytest.raises(ValueError, match=r"shape \(3,\), but a row is one input"):
        hx.predict_function(curve_fit, "line", np.zeros(3))
    with pytest.raises(ValueError, match=r"level=90\) must be a probability"):
        hx.predict_function(curve_fit, "line", at, level=90)
    with pytest.raises(ValueError, match=r"which='first'\) names no layer of the network, which has \['last'\]"):
        hx.predict_function(curve_fit, "line", at, which="first")


def test_a_network_without_a_note_needs_its_module():
    from numpyro.contrib.module import flax_module

    module = nn.MLP(depth=0)

    def model(pop):
        net = flax_module("line", module, input_shape=(1,))
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            level = numpyro.sample("level", dist.Normal(0.0, 0.5))
            hx.observe("dv", dist.Normal(level + net(pop.times[..., None])[..., 0], 0.1), pop)

    fit = hx.fit(model, times(5), hx.FOCE(), progress=False)
    with pytest.raises(ValueError, match=r"which does not record the module. Pass module="):
        hx.predict_function(fit, "line", np.zeros((1, 1)))
    assert hx.predict_function(fit, "line", np.zeros((1, 1)), module=module)["estimate"].shape == (1, 1)


@pytest.mark.slow
def test_a_network_whose_weights_are_sampled():
    """NumPyro's random_flax_module with priors that count is the network with the same priors."""
    from numpyro.contrib.module import random_flax_module

    module = nn.MLP(width=2, depth=1)

    def model(pop):
        net = random_flax_module("line", module, dist.Normal(0.0, 1.0), input_shape=(1,))
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            level = numpyro.sample("level", dist.Normal(0.0, 0.5))
            hx.observe("dv", dist.Normal(level + net(pop.times[..., None])[..., 0], 0.1), pop)

    at = np.array([[0.0], [1.0], [2.0]])
    fit = hx.fit(
        model,
        times(5),
        hx.FOCE(),
        use_priors=True,
        init={"line/hidden_0.kernel": np.array([[1.0, -1.0]])},
        progress=False,
    )
    found = hx.predict_function(fit, "line", at, module=module, which="all")
    weights = {
        "hidden_0": {"kernel": fit.params["line/hidden_0.kernel"], "bias": fit.params["line/hidden_0.bias"]},
        "last": {"kernel": fit.params["line/last.kernel"], "bias": fit.params["line/last.bias"]},
    }
    np.testing.assert_allclose(found["estimate"], module.apply({"params": weights}, at))
    last = hx.predict_function(fit, "line", at, module=module, which="last")
    assert (found["functions"].std(("chain", "draw")) > 0).all()
    assert (last["functions"].std(("chain", "draw")) > 0).all()
    with pytest.raises(ValueError, match=r"no network 'other'. It has \['line'\]"):
        hx.predict_function(fit, "other", at)


@pytest.mark.slow
def test_several_fits_and_a_bootstrap_say_how_well_a_function_is_known(curve_fit):
    at = np.array([[0.0], [2.0]])
    again = hx.fit(curve, times(seed=1), hx.FOCE(), progress=False)
    several = hx.predict_function([again, curve_fit], "line", at, level=0.5)
    top = max((again, curve_fit), key=lambda fit: fit.log_likelihood)
    np.testing.assert_allclose(several["estimate"], hx.predict_function(top, "line", at)["estimate"])
    assert several.sizes["draw"] == 2
    assert (several["lower"] < several["upper"]).all()
    boot = hx.bootstrap(curve_fit, 30)
    by_replicates = hx.predict_function(curve_fit, "line", at, replicates=boot.estimates)
    assert by_replicates.sizes["draw"] == len(boot.estimates)
    # In this balanced design the estimate is the mean of the subjects' own generalised least squares.
    rows, marginal = np.stack([np.ones(9), np.linspace(0, 2, 9)], 1), 0.01 * np.eye(9) + 0.25
    weights = np.linalg.solve(rows.T @ np.linalg.solve(marginal, rows), np.linalg.solve(marginal, rows).T)
    own = np.asarray(curve_fit.pop.dv["dv"]) @ weights.T @ np.stack([np.ones(2), at[:, 0]])
    drawn = [np.random.default_rng([0, k]).choice(len(own), len(own)) for k in range(30)]
    by_hand = np.array([own[rows].mean(0) for rows in drawn])
    error = own.std(0) / np.sqrt(len(own))
    assert (np.abs(by_replicates["functions"].values[0, :, :, 0] - by_hand) < 0.01 * error).all()
    with pytest.raises(ValueError, match=r"not parameters of the fit: \['other'\]. Pass the estimates of hx.bootstrap"):
        hx.predict_function(curve_fit, "line", at, replicates=boot.estimates.rename(columns={"line$params~0": "other"}))
    with pytest.raises(ValueError, match="exactly one with replicates="):
        hx.predict_function([again, curve_fit], "line", at, replicates=boot.estimates)


@pytest.mark.parametrize(
    ("penalty", "size"),
    [
        (nn.l2(0.5), lambda w: 0.5 * np.sum(w**2)),
        (nn.l1(0.5), lambda w: 0.5 * np.sum(np.abs(w))),
        (nn.group(0.5), lambda w: 0.5 * np.sum(np.linalg.norm(w, axis=1))),
    ],
)
def test_penalties_are_what_they_say_and_are_no_part_of_the_objective(penalty, size):
    """Their difference between two points; a prior has constants that an optimum does not see."""
    pop = times(5)
    fit = hx.fit(curve, pop, hx.FOCE(), priors={"line$params": penalty}, progress=False)
    free = hx.fit(curve, pop, hx.FOCE(), progress=False)
    kernel, other = (np.asarray(one.params["line$params"]["last"]["kernel"]) for one in (fit, free))
    assert np.abs(kernel).sum() < np.abs(other).sum()
    apart = fit.session.penalty(free.flat)[0] - fit.session.penalty(fit.flat)[0]
    np.testing.assert_allclose(apart, size(other) - size(kernel), atol=1e-8)
    np.testing.assert_allclose(fit.log_likelihood, hx.evaluate(curve, pop, fit.params, hx.FOCE()).log_likelihood)
    assert fit.log_likelihood <= free.log_likelihood


def test_a_group_penalty_is_a_density():
    """Integrated over a plane: polar coordinates around 0."""
    prior = nn.group(0.7)("last.kernel", (1, 2))
    radius = np.linspace(0, 60, 20001)
    density = np.exp([float(prior.log_prob(jnp.array([[r, 0.0]]))) for r in radius[::100]])
    np.testing.assert_allclose(np.trapezoid(density * 2 * np.pi * radius[::100], radius[::100]), 1.0, rtol=0.02)
    with pytest.raises(ValueError, match=r"nn.l2\(0\) must have a positive strength"):
        nn.l2(0)


@pytest.mark.slow
def test_nnx_modules_are_networks_too():
    """The same linear network by flax's other interface has the same optimum."""
    from flax import nnx
    from numpyro.contrib.module import nnx_module

    class Line(nnx.Module):
        def __init__(self, rngs):
            self.last = nnx.Linear(1, 1, rngs=rngs)

        def __call__(self, x):
            return self.last(x)

    def model(pop):
        net = nnx_module("line", Line(nnx.Rngs(0)))
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            level = numpyro.sample("level", dist.Normal(0.0, 0.5))
            hx.observe("dv", dist.Normal(level + net(pop.times[..., None])[..., 0], 0.1), pop)

    found = hx.fit(model, times(5), hx.FOCE(), progress=False)
    expected = hx.fit(curve, times(5), hx.FOCE(), progress=False)
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, atol=1e-6)
