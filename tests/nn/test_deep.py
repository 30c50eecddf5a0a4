"""DeepNLME held to the truth: networks of the concentration and of random effects, on data from a known model."""

import deep
import jax.numpy as jnp
import numpy as np
import pytest
from indirect import TRUTH, hill

import hierax as hx

SAMPLING = hx.ImportanceSampling(1000)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# How FOCE's search ends is no part of the claims: networks are not identified to a tenth of a standard error.
pytestmark = [
    pytest.mark.study,
    pytest.mark.filterwarnings("ignore::hierax.errors.HieraxWarning"),
]


@pytest.fixture(scope="module")
def test_set():
    return deep.simulated(100, seed=1000)


@pytest.fixture(scope="module", params=range(3))
def training(request):
    """A training set, the model with a network that validation chooses, and the true and wrong structures."""
    train, _ = deep.simulated(60, seed=request.param)
    first, held_out = train[:48], train[48:]
    scores = {}

    def judge(inputs, strength):
        # Roughly is enough to choose by.
        fit = deep.fit_deep(first, inputs, strength, evaluations=60)
        scores[inputs, strength] = hx.log_likelihood(fit, SAMPLING, pop=held_out).log_likelihood / (12 * 15)

    for inputs in (1, 2, 3):
        judge(inputs, 0.05)
    inputs = max(scores, key=scores.get)[0]
    for strength in (0.005, 0.5):
        judge(inputs, strength)
    inputs, strength = max(scores, key=scores.get)
    fits = {"network": deep.fit_deep(train, inputs, strength)}
    for kind in ("hill", "emax", "linear"):
        fits[kind] = hx.fit(deep.structured(kind), train, hx.FOCE(), progress=False)
    print(f"\nset {request.param}: validation {scores}, seconds {[fit.timing['total'] for fit in fits.values()]}")
    return inputs, fits, float(np.nanmax(train.dv["c"]))


def test_random_effects_as_inputs_against_weights_of_ones_own(test_set):
    """Same data, same network: which is more likely on held-out subjects, and what it costs.

    When last run: two inputs 1748.1 on the training set and 2812.2 on the test set, 554 s; the last layer 1715.3 and
    2754.6, 3325 s; two directions 1728.9 and 2718.7 (86 of 100 subjects with a Pareto k above .7), 1420 s.
    """
    train, _ = deep.simulated(60, seed=0)
    fits = {"two inputs": deep.fit_deep(train, 2)}
    for name, which in (("last layer", "last"), ("two directions", 2)):
        fits[name] = deep.fit_deep(train, 0, model=deep.individual(which))
    found = {name: hx.log_likelihood(fit, SAMPLING, pop=test_set[0]) for name, fit in fits.items()}
    for name, fit in fits.items():
        gap = paired(found[name], found["two inputs"])
        print(name, "train", fit.log_likelihood, "test", gap, "FOCE seconds", fit.timing["total"], flush=True)
    assert all(np.isfinite(one.log_likelihood) for one in found.values())
    # What the documentation recommends.
    assert max(found, key=lambda name: found[name].log_likelihood) == "two inputs"


def paired(one, other):
    """Return mean and standard error of a difference of log likelihoods, nats per observation of R."""
    difference = (one.subjects["log_likelihood"] - other.subjects["log_likelihood"]) / 15
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference))), float(difference.min())


def test_held_out_subjects_are_as_likely_as_under_the_true_structure(training, test_set):
    inputs, fits, _ = training
    found = {name: hx.log_likelihood(fit, SAMPLING, pop=test_set[0]) for name, fit in fits.items()}
    for name, one in found.items():
        print(name, paired(one, found["hill"]), "Pareto k", one.subjects["pareto_k"].max())
    gap, _, worst = paired(found["network"], found["hill"])
    assert gap > -0.02
    assert worst > -1.0
    for wrong in ("emax", "linear"):
        above, error, _ = paired(found["network"], found[wrong])
        assert above > 2 * error


def test_predictions_cover_held_out_observations(training, test_set):
    """A hundred subjects do not say coverage to three points either: the truth itself covers 92.9 % of this test set.

    When last run the network covered 90.0, 96.7 and 95.1 %, the true structure 90.3, 96.2 and 94.7 %.
    """
    _, fits, _ = training
    pop, shares = test_set[0], {}
    for name in ("network", "hill"):
        drawn = hx.simulate(fits[name], pop, n=500, seed=1)["R"].values
        low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
        seen, data = np.asarray(pop.mask["R"]), np.asarray(pop.dv["R"])
        share = np.mean((data[seen] >= low[seen]) & (data[seen] <= high[seen]))
        print(name, "inside", share)
        shares[name] = share
    # Sixty subjects do not say to three points how much subjects differ: the true structure, fitted to them, may miss
    # 90 % by more. Where it does not, the network may not either.
    assert abs(shares["network"] - shares["hill"]) <= 0.03
    if abs(shares["hill"] - 0.9) <= 0.03:
        assert abs(shares["network"] - 0.9) <= 0.03


def curves(c, smax, n, sc50):
    """Return the Hill curve of each subject, (subject, concentration)."""
    return np.asarray(hill(jnp.asarray(c), smax[:, None], sc50, n[:, None]))


def learned(fit, inputs, c, z):
    """Return the network's curve of each z, (subject, concentration)."""
    net = deep.network(inputs)
    points = jnp.concatenate(
        [
            jnp.broadcast_to(c[None, :, None], (len(z), len(c), 1)),
            jnp.broadcast_to(z[:, None], (len(z), len(c), inputs)),
        ],
        axis=-1,
    )
    return np.asarray(net.apply({"params": fit.params["effect$params"]}, points))[..., 0]


def test_the_family_of_curves_is_the_true_one(training, test_set):
    """Not held at the 95 % curve of the first two sets when last run (15.6 and 20.1 % off; the third: 6.3 %).

    The true structure's own curve is off by 21.1 and 22.8 % there (the third: 2.8 %): sixty subjects do not say more.
    """
    inputs, fits, most = training
    c, rng = jnp.linspace(0, most, 100), np.random.default_rng(0)
    eta = 0.3 * rng.normal(size=(4000, 2))
    family = curves(c, TRUTH["Smax"] * np.exp(eta[:, 0]), TRUTH["n"] * np.exp(eta[:, 1]), TRUTH["SC50"])
    ours = learned(fits["network"], inputs, c, rng.normal(size=(4000, inputs)))
    top = np.median(family, axis=0).max()
    off = np.abs(np.quantile(family, QUANTILES, axis=0) - np.quantile(ours, QUANTILES, axis=0)).max(1) / top
    size, shape = fits["hill"].params["omega"][2:]
    structure = curves(
        c,
        fits["hill"].params["Smax"] * np.exp(size / 0.3 * eta[:, 0]),
        fits["hill"].params["n"] * np.exp(shape / 0.3 * eta[:, 1]),
        fits["hill"].params["SC50"],
    )
    least = np.abs(np.quantile(family, QUANTILES, axis=0) - np.quantile(structure, QUANTILES, axis=0)).max(1) / top
    print("quantile curves off by", off, "the true structure's own by", least)

    pop, drawn = test_set
    eta = drawn["eta"].values[0]
    true = curves(c, TRUTH["Smax"] * np.exp(eta[:, 2]), TRUTH["n"] * np.exp(eta[:, 3]), TRUTH["SC50"])
    own = fits["network"].embeddings(pop)
    names = list(own["eta_name"].values)
    where = [k for k, name in enumerate(names) if str(name).startswith("z")]
    by_network = learned(fits["network"], inputs, c, jnp.asarray(own.values[:, where]))
    params, other = fits["hill"].params, fits["hill"].embeddings(pop).values
    by_hill = curves(c, params["Smax"] * np.exp(other[:, 2]), params["n"] * np.exp(other[:, 3]), params["SC50"])
    errors = [np.sqrt(np.mean((one - true) ** 2)) for one in (by_network, by_hill)]
    print("curves of test subjects: RMSE", errors)
    assert off.max() <= 0.15
    assert errors[0] <= 1.15 * errors[1]
