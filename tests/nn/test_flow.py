"""Flows: exact inverses and determinants, densities that integrate to one, and the same program under them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from helpers import prepared
from numpyro.distributions.flows import BlockNeuralAutoregressiveTransform, InverseAutoregressiveTransform
from numpyro.nn import AutoregressiveNN, BlockNeuralAutoregressiveNN
from zoo import POSITIVE

import hierax as hx
from hierax.infer.saem.run import roles_of

KINDS = ("spline", "affine", "sinh", "coupling", "affine-coupling", "sinh-coupling")


def trained(stack, context=None, spread=0.1):
    """Return weights as far from the identity as a fit takes them; steeper slopes cost a round trip its digits."""
    x = jnp.zeros((1, stack.size))
    first = jax.jit(stack.init)(jax.random.key(1), x, None if context is None else context[:1])["params"]
    leaves, structure = jax.tree.flatten(first)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    moved = [leaf + spread * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return first, jax.tree.unflatten(structure, moved)


def points(size, count=60):
    # Some beyond the knots of a spline, where its tails are.
    return 2.0 * jax.random.normal(jax.random.key(0), (count, size))


TIERS = {("spline", 2): [], ("affine", 1): [], ("spline", 1): pytest.mark.slow, ("sinh", 5): pytest.mark.slow}


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        # The others take their time to compile.
        pytest.param(kind, size, marks=TIERS.get((kind, size), pytest.mark.slow if size == 2 else pytest.mark.study))
        for kind in KINDS
        for size in (1, 2, 5)
    ],
)
def test_inverse_determinant_and_second_derivatives(kind, size):
    stack = hx.nn.Stack(size, kind, 2, mixing="linear")
    x, context = points(size), jax.random.normal(jax.random.key(3), (60, 2))
    # With .1 a spline in 5 dimensions moves points by 570 standard deviations, and its slopes go down to e^-22: no fit.
    start, weights = trained(stack, context, spread=0.1 if size < 5 else 0.05)

    @jax.jit
    def all_of(weights):
        transform = hx.NeuralTransform(stack, weights, context)
        y = transform(x)
        return y, transform.inv(y), transform.log_abs_det_jacobian(x, y), transform.inverse_with_log_det(y)[1]

    np.testing.assert_allclose(all_of(start)[0], x, atol=1e-12)
    y, back, found, inverse = all_of(weights)
    assert float(jnp.abs(y - x).max()) > 0.3
    np.testing.assert_allclose(back, x, atol=1e-8)

    def one(x, context):
        return hx.NeuralTransform(stack, weights, context)(x)

    jacobian = jax.jit(jax.vmap(jax.jacfwd(one)))(x, context)
    np.testing.assert_allclose(found, jnp.linalg.slogdet(jacobian)[1], atol=1e-10)
    np.testing.assert_allclose(inverse, -found, atol=1e-8)
    hessian = jax.jit(jax.vmap(jax.hessian(lambda x, c: one(x, c).sum())))(x, context)
    assert bool(jnp.isfinite(hessian).all())

    def density(weights):
        flow = dist.TransformedDistribution(
            dist.Normal(jnp.zeros(size), 1.0).to_event(1), hx.NeuralTransform(stack, weights, context)
        )
        return flow.log_prob(y).sum()

    ones = jax.tree.map(jnp.ones_like, weights)
    slopes = jax.jit(lambda w: jax.jvp(jax.grad(density), (w,), (ones,)))(weights)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(slopes))


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] if k == "sinh-coupling" else []) for k in KINDS]
)
@pytest.mark.parametrize("size", [1, 2])
def test_densities_integrate_to_one(kind, size):
    stack = hx.nn.Stack(size, kind, 2)
    # A coupling of one coordinate is conditional on nothing.
    # Further away a spline's slopes reach e^12, which no grid of this size resolves.
    _, weights = trained(stack, spread=0.05)
    base, transform = dist.Normal(jnp.zeros(size), 1.0).to_event(1), hx.NeuralTransform(stack, weights)
    log_prob = jax.jit(lambda x: dist.TransformedDistribution(base, transform).log_prob(x))
    line = jnp.linspace(-14, 14, 20_001 if size == 1 else 801)
    grid = jnp.stack(jnp.meshgrid(*[line] * size), axis=-1).reshape(-1, size)
    total = jnp.exp(log_prob(grid)).sum() * (line[1] - line[0]) ** size
    np.testing.assert_allclose(total, 1.0, atol=1e-3)


def test_one_affine_layer_is_the_iaf_of_numpyro():
    """The same numbers of scale and shift: the same map and determinant."""
    stack = hx.nn.Stack(3, "affine", 1)
    _, weights = trained(stack)
    x = points(3)
    network = hx.nn.Autoregressive(3, 2, stack.width, stack.depth)

    def shift_and_scale(x):
        raw = network.apply({"params": weights["layer_0"]["Autoregressive_0"]}, x)
        return raw[..., 0], 3.0 * jnp.tanh(raw[..., 1] / 3.0)

    theirs = InverseAutoregressiveTransform(shift_and_scale)
    ours = hx.NeuralTransform(stack, weights)
    y, log_det = theirs.call_with_intermediates(x)
    np.testing.assert_allclose(ours(x), y, atol=1e-10)
    np.testing.assert_allclose(ours.log_abs_det_jacobian(x, y), theirs.log_abs_det_jacobian(x, y, log_det), atol=1e-10)


def test_outputs_depend_on_the_coordinates_before_alone():
    network = hx.nn.Autoregressive(4, 3, 20, 2)
    context = jnp.ones((1, 2))
    first = network.init(jax.random.key(0), jnp.zeros((1, 4)), context)
    weights = jax.tree.map(lambda leaf: leaf + 0.5, first)
    slope = jax.jacfwd(lambda x: network.apply(weights, x[None], context)[0])(jnp.arange(4.0) / 4)
    seen = np.abs(np.asarray(slope)).max(1) > 0
    assert np.array_equal(seen, np.tril(np.ones((4, 4), bool), -1))
    by_context = jax.jacfwd(lambda c: network.apply(weights, jnp.zeros((1, 4)), c[None])[0])(jnp.ones(2))
    assert (np.abs(np.asarray(by_context)).max((1, 2)) > 0).all()


def theophylline_by(prior):
    def model(pop):
        ka = numpyro.param("ka", 1.57, constraint=POSITIVE)
        cl = numpyro.param("cl", 2.72, constraint=POSITIVE)
        v = numpyro.param("v", 31.5, constraint=POSITIVE)
        sigma = numpyro.param("sigma", 0.7, constraint=POSITIVE)
        distribution = prior(pop)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", distribution)
            values = {n: p * jnp.exp(eta[..., k]) for k, (n, p) in enumerate([("ka", ka), ("CL", cl), ("V", v)])}
            hx.observe("dv", dist.Normal(hx.pk.one_compartment(pop, **values), sigma), pop)

    return model


SDS = np.array([0.63, 0.26, 0.13])


def by_weight(pop):
    context = jnp.log(jnp.asarray(pop.covariates["WT"]) / 70.0)[..., None]
    return hx.flow("flow", 3, context, scale=SDS)


@pytest.mark.parametrize(
    "estimator",
    [hx.FOCE(), *(pytest.param(e, marks=pytest.mark.slow) for e in (hx.Laplace(), hx.AGQ(5)))],
    ids=lambda e: e.label,
)
def test_a_flow_before_training_is_the_gaussian(theo_pop, estimator):
    """The identity: the same objective, modes and predictions as the Gaussian program."""
    gaussian = theophylline_by(lambda pop: dist.Normal(jnp.zeros(3), SDS).to_event(1))
    flow = theophylline_by(lambda pop: hx.flow("flow", 3, scale=SDS))
    plain = hx.evaluate(gaussian, theo_pop, None, estimator)
    found = hx.evaluate(flow, theo_pop, None, estimator)
    np.testing.assert_allclose(found.ofv, plain.ofv, atol=1e-8)
    # Modes are in base space.
    np.testing.assert_allclose(found.eta[found.rows] * SDS, plain.eta[plain.rows], atol=1e-8)


@pytest.mark.slow
def test_values_behind_a_flow_can_be_held(theo_pop):
    """Coordinates from values and back, with the determinant of automatic differentiation; what SAEM's steps are by."""
    program = hx.program(theophylline_by(by_weight), theo_pop).program
    rng, params = np.random.default_rng(1), program.start()
    params["flow$params"] = jax.tree.map(lambda w: w + 0.1 * rng.normal(size=w.shape), params["flow$params"])
    eta = jnp.asarray(rng.normal(size=(theo_pop.n_subjects, 3)))
    assert program.flows == ("eta",)
    held = program.behind_flows(theo_pop, params, eta)
    found, log_det = jax.jit(program.carried)(theo_pop, params, jnp.zeros_like(eta), held)
    np.testing.assert_allclose(found, eta, atol=1e-8)
    slopes = jax.jacfwd(lambda e: program.behind_flows(theo_pop, params, e)["eta"][:, 0])(eta)
    own = np.stack([slopes[k, :, k] for k in range(len(eta))])
    np.testing.assert_allclose(log_det, np.linalg.slogdet(own)[1], atol=1e-8)
    # The density of values, and the part of it that SAEM moves a flow's weights by.
    whole = program.log_joint_of_values(theo_pop, params, eta, held)
    np.testing.assert_allclose(whole, program.log_joint(theo_pop, params, eta) - log_det, atol=1e-8)
    alone = program.log_joint_of_values(theo_pop, params, eta, held, prior_alone=True)
    np.testing.assert_allclose(whole - alone, program.log_data(theo_pop, program.run(theo_pop, params, eta)), atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("in_the_data", "aloof"), [(False, True), (True, False)])
def test_the_data_see_a_flow_through_its_values_alone(theo_pop, in_the_data, aloof):
    """Where nothing else sees the weights either, SAEM trains them without solving the model."""

    def model(pop):
        net = hx.nn.network("net", hx.nn.MLP(1, width=3, depth=1), input_shape=(1,)) if in_the_data else None
        flow = hx.flow("flow", 3, scale=SDS)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", flow)
            p = {n: v * jnp.exp(eta[..., k]) for k, (n, v) in enumerate({"ka": 1.57, "CL": 2.72, "V": 31.5}.items())}
            conc = hx.pk.one_compartment(pop, **p)
            more = 0.0 if net is None else 0.1 * net(pop.times[..., None])[..., 0]
            hx.observe("dv", dist.Normal(conc + more, numpyro.param("sigma", 0.7, constraint=POSITIVE)), pop)

    job = prepared(model, theo_pop)
    assert roles_of(job, job.session(hx.Laplace()).pop).aloof is aloof


@pytest.mark.slow
def test_a_conditional_flow_is_fitted(theo_pop):
    """By the weights alone, the likelihood by quadrature climbs."""
    model = theophylline_by(by_weight)
    fixed = ["ka", "cl", "v", "sigma"]
    start = hx.evaluate(model, theo_pop, None, hx.AGQ(3))
    fit = hx.fit(model, theo_pop, hx.VI(samples=8, steps=600), fixed=fixed, progress=False)
    climbed = hx.evaluate(model, theo_pop, fit.params, hx.AGQ(3))
    assert climbed.ofv < start.ofv - 1
    weights = fit.params["flow$params"]
    assert set(weights) == {"layer_0", "layer_1"}


def numpyros_own(kind):
    """A flow of NumPyro's, whose weights are lists of pairs."""

    def prior(pop):
        if kind == "iaf":
            network = numpyro.module("net", AutoregressiveNN(3, [8]), (3,))
            transform = InverseAutoregressiveTransform(network)
        else:
            network = numpyro.module("net", BlockNeuralAutoregressiveNN(3, [5]), (3,))
            transform = BlockNeuralAutoregressiveTransform(network)
        return dist.TransformedDistribution(dist.Normal(jnp.zeros(3), SDS).to_event(1), transform)

    return prior


@pytest.mark.slow
def test_a_flow_of_numpyro_is_fitted(theo_pop):
    model = theophylline_by(numpyros_own("iaf"))
    start = hx.evaluate(model, theo_pop, None, hx.FOCE())
    method = hx.SAEM(exploratory=40, smoothing=20, automatic=False, objective=hx.FOCE())
    fit = hx.fit(model, theo_pop, method, progress=False)
    assert fit.ofv < start.ofv - 1
    # Weights are part of the fit: lists, as NumPyro keeps them.
    assert isinstance(fit.params["net$params"], list)
    assert "ka" in fit.summary().index


def test_saem_needs_a_flows_inverse(theo_pop):
    with pytest.raises(hx.EstimatorError, match=r"the flow of \['eta'\] has no inverse.*NumPyro's IAF"):
        hx.fit(theophylline_by(numpyros_own("block")), theo_pop, hx.SAEM(), progress=False)


def test_slips_are_named(theo_pop):
    with pytest.raises(ValueError, match="kind='splines'.*is not known"):
        hx.nn.Stack(2, "splines")
    with pytest.raises(ValueError, match="size, layers, width and depth of 1 or more"):
        hx.nn.Stack(2, layers=0)
    with pytest.raises(ValueError, match=r"flow\('f', dim=0\) needs a dim of 1 or more"):
        hx.flow("f", 0)
    with pytest.raises(ValueError, match="got a number"):
        hx.flow("f", 2, 1.0)
