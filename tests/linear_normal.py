"""A linear model whose posterior is normal, in closed form."""

import numpyro
import numpyro.distributions as dist

import hierax as hx


def linear_population(y):
    subjects = [hx.Subject(i + 1, None, [0.0, 1.0, 2.0], {"dv": row}) for i, row in enumerate(y)]
    return hx.Population.from_subjects(subjects)


def linear(pop):
    """y = mu + eta + error with known SDs, and a normal prior of mu: the posterior is normal, in closed form."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, 0.7))
        hx.observe("dv", dist.Normal(mu + eta + 0 * pop.times, 0.5), pop)


def exact_posterior(y):
    """Mean and SD of mu: subject means have variance 0.7² + 0.5²/3."""
    variance = 0.7**2 + 0.5**2 / 3
    precision = len(y) / variance + 1 / 4
    return y.mean(1).sum() / variance / precision, precision**-0.5
