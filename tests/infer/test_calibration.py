"""Simulation-based calibration of posteriors, and how often intervals hold the truth."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from linear_normal import linear, linear_population

import hierax as hx
from hierax.results.uncertainty.posterior import population_draws

POSITIVE = dist.constraints.positive
REPLICATES, KEPT, BINS = 200, 49, 10


def rank(draws, truth):
    """Return how many of ``KEPT`` thinned draws are below the truth: uniform on 0..KEPT where all is right."""
    thinned = np.ravel(draws)[:: np.size(draws) // KEPT][:KEPT]
    return int((thinned < truth).sum())


def uniform(ranks):
    """Return the p value of the chi-square test of uniform ranks (Talts et al. 2018)."""
    counts = np.bincount(np.asarray(ranks) * BINS // (KEPT + 1), minlength=BINS)
    return scipy.stats.chisquare(counts).pvalue


# Chains this short may be called unmixed; ranks of thinned draws need no more than they have.
@pytest.mark.study
@pytest.mark.filterwarnings(r"ignore:The fit did not converge \(not_mixed\)")
def test_simulation_based_calibration_of_a_linear_model():
    ranks = []
    sampler = hx.NUTS(warmup=200, draws=500, chains=2)
    for seed in range(REPLICATES):
        rng = np.random.default_rng(seed)
        mu = rng.normal(0, 2)
        y = mu + 0.7 * rng.normal(size=(8, 1)) + 0.5 * rng.normal(size=(8, 3))
        fit = hx.fit(linear, linear_population(y), sampler, progress=False, seed=seed)
        ranks.append(rank(fit.samples.flat[..., 0], mu))
    assert uniform(ranks) > 0.001


PRIORS = {
    "cl": dist.LogNormal(1.0, 0.3),
    "v": dist.LogNormal(3.0, 0.3),
    "omega": dist.LogNormal(-1.0, 0.3),
    "sigma": dist.LogNormal(-2.0, 0.3),
}
TIMES = (0.5, 2.0, 8.0, 16.0)


def bolus(pop):
    cl = numpyro.param("cl", 3.0, constraint=POSITIVE)
    v = numpyro.param("v", 20.0, constraint=POSITIVE)
    omega = numpyro.param("omega", 0.4, constraint=POSITIVE)
    sigma = numpyro.param("sigma", 0.15, constraint=POSITIVE)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, omega).expand([2]).to_event(1))
        conc = hx.pk.one_compartment(pop, CL=cl * jnp.exp(eta[..., 0]), V=v * jnp.exp(eta[..., 1]))
        hx.observe("dv", dist.LogNormal(jnp.log(jnp.maximum(conc, 1e-12)), sigma), pop)


@pytest.mark.study
@pytest.mark.filterwarnings(r"ignore:The fit did not converge \(not_mixed\)")
def test_simulation_based_calibration_of_a_pharmacokinetic_model():
    """Eight subjects, four concentrations each; four population parameters drawn from their priors."""
    ranks = {name: [] for name in PRIORS}
    sampler = hx.NUTS(warmup=300, draws=400, chains=2)
    for seed in range(REPLICATES):
        rng = np.random.default_rng(1000 + seed)
        truth = {name: float(np.exp(rng.normal(prior.loc, prior.scale))) for name, prior in PRIORS.items()}
        cl, v = (truth[name] * np.exp(truth["omega"] * rng.normal(size=(8, 1))) for name in ("cl", "v"))
        y = 100 / v * np.exp(-cl / v * np.array(TIMES)) * np.exp(truth["sigma"] * rng.normal(size=(8, 4)))
        subjects = [hx.Subject(i + 1, hx.Regimen(100), TIMES, {"dv": row}) for i, row in enumerate(y)]
        pop = hx.Population.from_subjects(subjects)
        fit = hx.fit(bolus, pop, sampler, priors=PRIORS, progress=False, seed=seed)
        drawn = population_draws(fit)
        for name, value in truth.items():
            ranks[name].append(rank(drawn[name], value))
    assert min(uniform(values) for values in ranks.values()) > 0.001, {n: uniform(v) for n, v in ranks.items()}


# In the order of the names, as fits have them.
TRUTH = {"cl": 3.0, "omega[0]": 0.3, "omega[1]": 0.2, "sigma": 0.15, "v": 20.0}
SETS, LEVEL = 100, 0.9


def bolus_with_two_spreads(pop):
    cl = numpyro.param("cl", 3.0, constraint=POSITIVE)
    v = numpyro.param("v", 20.0, constraint=POSITIVE)
    omega = numpyro.param("omega", jnp.array([0.3, 0.2]), constraint=POSITIVE)
    sigma = numpyro.param("sigma", 0.15, constraint=POSITIVE)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, omega).to_event(1))
        conc = hx.pk.one_compartment(pop, CL=cl * jnp.exp(eta[..., 0]), V=v * jnp.exp(eta[..., 1]))
        hx.observe("dv", dist.Normal(conc, sigma * conc + 1e-3), pop)


def sixty_subjects(seed):
    rng = np.random.default_rng(seed)
    cl, v = 3 * np.exp(0.3 * rng.normal(size=(60, 1))), 20 * np.exp(0.2 * rng.normal(size=(60, 1)))
    mean = 100 / v * np.exp(-cl / v * np.array(TIMES))
    y = mean + (0.15 * mean + 1e-3) * rng.normal(size=mean.shape)
    subjects = [hx.Subject(i + 1, hx.Regimen(100), TIMES, {"dv": row}) for i, row in enumerate(y)]
    return hx.Population.from_subjects(subjects)


def wald(fit, kind="hessian"):
    """Return the 90 % interval of every parameter: normal in unconstrained space, which is the log here."""
    covariance = fit.covariance(kind)
    assert covariance.ok
    half = scipy.stats.norm.ppf(0.5 + LEVEL / 2) * np.sqrt(np.diag(covariance.unconstrained))
    centre = np.log([fit.params["cl"], *fit.params["omega"], fit.params["sigma"], fit.params["v"]])
    assert list(covariance.unconstrained.index) == list(TRUTH)
    return np.exp(centre - half), np.exp(centre + half)


INTERVALS = {
    "foce": lambda pop: wald(hx.fit(bolus_with_two_spreads, pop, hx.FOCE(), progress=False)),
    "saem": lambda pop: wald(hx.fit(bolus_with_two_spreads, pop, hx.SAEM(), progress=False), "louis"),
    "bootstrap": lambda pop: (
        hx.bootstrap(hx.fit(bolus_with_two_spreads, pop, hx.FOCE(), progress=False), 200).interval(LEVEL).T.to_numpy()
    ),
}


@pytest.mark.study
@pytest.mark.parametrize("method", list(INTERVALS))
def test_intervals_hold_the_truth_as_often_as_they_say(method):
    """Coverage of 90 % intervals over 100 data sets, within the 99 % band of its binomial distribution."""
    truth = np.array(list(TRUTH.values()))
    hits = np.zeros((SETS, len(truth)), bool)
    for seed in range(SETS):
        low, high = INTERVALS[method](sixty_subjects(seed))
        hits[seed] = (low <= truth) & (truth <= high)
    covered = dict(zip(TRUTH, hits.sum(0).tolist(), strict=True))
    print(method, covered)
    low, high = scipy.stats.binom.interval(0.99, SETS, LEVEL)
    # The approximation of FOCE makes its random effects' SDs biased, which is stated where it is described.
    held = {name: count for name, count in covered.items() if not (method == "foce" and name.startswith("omega"))}
    assert all(low <= count <= high for count in held.values()), covered
