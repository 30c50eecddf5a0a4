"""Draws of separate fits have nothing to do with each other; those of one fit are always the same."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from linear_normal import linear, linear_population

import hierax as hx
from hierax.results.fixed import as_fit
from hierax.results.uncertainty.draws import asymptotic_draws
from hierax.results.uncertainty.own_number import own_number


def evaluated(seed, model=linear):
    """A linear model at fixed parameters: 40 subjects, three observations each."""
    rng = np.random.default_rng(seed)
    y = 1.0 + 0.7 * rng.normal(size=(40, 1)) + 0.5 * rng.normal(size=(40, 3))
    return as_fit(hx.evaluate(model, linear_population(y), {"mu": 1.0}, hx.FOCE()))


def test_separate_fits_have_independent_draws():
    """Paired, their correlation within a subject was 0.53; the SD of no correlation is 0.008 here."""
    one, other = (evaluated(seed).conditional(400)["eta"].values[..., 0] for seed in (1, 2))
    centred = [(draws - draws.mean((0, 1))).ravel() for draws in (one, other)]
    assert abs(np.corrcoef(*centred)[0, 1]) < 0.04


def test_one_fit_always_has_the_same_draws():
    assert np.array_equal(evaluated(1).conditional(20)["eta"], evaluated(1).conditional(20)["eta"])


def test_the_number_of_a_fit_is_its_own_in_every_process():
    """It comes from names, data and the estimate, not from addresses or Python's salted hashes."""
    code = (
        "import sys; sys.path[:0] = ['tests', 'tests/results']; import numpyro; numpyro.enable_x64();"
        "from test_draws import evaluated, own_number; print(own_number(evaluated(1)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) == own_number(evaluated(1))
    assert own_number(evaluated(1)) != own_number(evaluated(2))


def test_draws_of_estimates_are_not_paired_either(linear_fits):
    one, other = (asymptotic_draws(fit, 4000, 0) for fit in linear_fits)
    assert abs(np.corrcoef(one[:, 0], other[:, 0])[0, 1]) < 0.06


def test_neither_are_resampled_ones(linear_fits):
    one, other = (hx.sir(fit, n=1000, samples=4000).draws["mu"].to_numpy() for fit in linear_fits)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.13


def test_simulations_of_two_programs_are_not_paired_and_those_of_one_have_common_numbers():
    """Random effects of a PK and of a PD model that are simulated apart and joined must not be correlated."""

    def twin(pop):
        linear(pop)

    pop = linear_population(np.ones((400, 3)))
    draws = [
        hx.simulate(model, pop, seed=0, n=5, params={"mu": mu})["dv"].values[..., 0].ravel()
        for model, mu in ((linear, 0.0), (twin, 0.0), (linear, 1.0))
    ]
    assert abs(np.corrcoef(draws[0], draws[1])[0, 1]) < 0.09
    np.testing.assert_allclose(draws[2] - draws[0], 1.0, atol=1e-12)


def test_chains_of_two_posteriors_are_not_paired():
    """The same momenta moved both: the correlation of draws of their means was .53."""
    rng = np.random.default_rng(3)
    nuts = hx.MarginalNUTS(warmup=100, draws=300, chains=1)
    draws = []
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", hx.HieraxWarning)
            fit = hx.fit(linear, linear_population(rng.normal(1.0, 1.0, (40, 3))), nuts, progress=False)
        draws.append(fit.samples.flat.ravel())
    # 300 draws have an effective size of 100 or more: four standard errors.
    assert abs(np.corrcoef(*draws)[0, 1]) < 0.4


@pytest.fixture(scope="module")
def linear_fits():
    rng = np.random.default_rng(3)
    return [
        hx.fit(linear, linear_population(rng.normal(1.0, 1.0, (40, 3))), hx.FOCE(), progress=False) for _ in range(2)
    ]


def test_what_needs_estimates_refuses_an_evaluation_by_name(tmp_path):
    at = hx.evaluate(linear, linear_population(np.ones((3, 3))), {"mu": 1.0}, hx.FOCE())
    for name, ask in {
        "profile": lambda: hx.profile(at, "mu"),
        "sir": lambda: hx.sir(at),
        "bootstrap": lambda: hx.bootstrap(at, 2),
        "report": lambda: hx.report(at, tmp_path / "report.html"),
        "loo": lambda: hx.loo(at),
    }.items():
        with pytest.raises(ValueError, match=f"{name} needs estimates.*Evaluation that hx.evaluate returns"):
            ask()
    # Its likelihood needs none.
    np.testing.assert_allclose(hx.log_likelihood(at, hx.AGQ(3)).log_likelihood, at.log_likelihood, rtol=1e-10)


def test_a_result_prints_its_name():
    """``print(fit.result)`` printed a number."""
    assert str(hx.Result.converged) == "converged"
    assert f"{hx.Result.poor_guide}" == "poor_guide"
