"""What is known of subjects, held to the truth: covariates, notes, and pictures that random effects depend on."""

import functools

import modalities
import numpy as np
import pytest
import shapes

import hierax as hx

pytestmark = [pytest.mark.study, pytest.mark.filterwarnings("ignore::hierax.errors.HieraxWarning")]
SAMPLING = hx.ImportanceSampling(1000, proposal="t")
PENALTIES = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)


def normal(**options):
    return lambda context: hx.nn.conditional_normal("normal", 2, context, module=hx.nn.MLP(outputs=5, **options))


def flow(context):
    return hx.flow("flow", 2, context, kind="affine", layers=2, depth=2)


def likelihood(fit, pop):
    return hx.log_likelihood(fit, SAMPLING, pop=pop).subjects["log_likelihood"].to_numpy()


def paired(one, other):
    difference = one - other
    return difference.mean(), difference.std(ddof=1) / np.sqrt(len(difference))


@functools.cache
def gaussian():
    train, test = shapes.with_covariates(500, 0).pop, shapes.with_covariates(500, 1000).pop
    return train, test, hx.fit(shapes.gaussian, train, hx.FOCE(), progress=False)


@pytest.mark.parametrize("distribution", [normal(width=16, depth=2), flow], ids=["normal", "flow"])
def test_nonlinear_effects_and_an_interaction(distribution):
    _, test, fit = gaussian()
    names = ["x1", "x2"]
    learned = hx.augment(fit, names, distribution=distribution, penalties=PENALTIES)
    drawn = hx.simulate(learned.fit, test, n=400, seed=3)
    unexplained = np.sqrt((drawn["eta"].values.reshape(400, -1, 2).std(0) ** 2).mean(0))
    true = hx.simulate(shapes.by_covariates, test, n=400, seed=4)
    width = [np.diff(np.quantile(one["cp"].values[..., 1:], [0.05, 0.95], axis=0), axis=0)[0] for one in (drawn, true)]
    ratio = np.median(width[0] / width[1])
    print("unexplained SD", unexplained, "width of a new subject's band", ratio, flush=True)
    np.testing.assert_allclose(unexplained, shapes.UNEXPLAINED, rtol=0.1)
    assert abs(ratio - 1) <= 0.1

    noisy = hx.augment(fit, [*names, *(f"noise{k}" for k in range(5))], distribution=distribution, penalties=PENALTIES)
    change, error = paired(likelihood(noisy.fit, test), likelihood(learned.fit, test))
    print("noise covariates", change, error, noisy.context.names, flush=True)
    assert abs(change) <= error


@pytest.mark.parametrize("kind", ["words", "pictures"])
def test_a_score_in_words_or_pictures(kind):
    if kind == "words":
        pytest.importorskip("wordllama")
        (score, seen), (test_score, test_seen) = modalities.words(400, 0), modalities.words(400, 1000)
    else:
        pytest.importorskip("sklearn")
        score, seen = modalities.pictures(1000, 0)
        test_score, test_seen = modalities.pictures(400, 1000, test=True)
    train = modalities.responding(score, 0).pop.with_data(seen=seen)
    test = modalities.responding(test_score, 1000).pop.with_data(seen=test_seen)
    fit = hx.fit(shapes.gaussian, train, hx.FOCE(), progress=False)
    by_score = hx.augment(fit, ["score"], distribution=normal(width=8), penalties=PENALTIES)
    by_seen = hx.augment(fit, ["seen"], distribution=normal(width=8, reduce=3), penalties=PENALTIES)
    none, of_score, of_seen = (likelihood(one, test) for one in (fit, by_score.fit, by_seen.fit))
    gain, gain_error = paired(of_seen, none)
    short, short_error = paired(of_seen, of_score)
    print(
        kind,
        "gain",
        gain,
        gain_error,
        "below the score",
        short,
        short_error,
        "share",
        gain / (gain - short),
        flush=True,
    )
    assert gain > 2 * gain_error
    assert short <= 2 * short_error
