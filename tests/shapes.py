"""Populations whose random effects have a shape: skewed, bent, two modes; and covariates that matter."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

import hierax as hx

POSITIVE = constraints.positive
TIMES = np.array([0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 18.0, 24.0])
TYPICAL = {"CL": 3.0, "V": 30.0}
KA, SIGMA = 1.2, 0.05
SHARE = 0.6


class _By(dist.transforms.Transform):
    """A map of the plane with one number."""

    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(self, by):
        self.by = by

    def tree_flatten(self):
        return (), ((), {"by": self.by})


class Bend(_By):
    """(x, y) → (x, y + b·(x² − 1)): a banana of a normal vector."""

    def __call__(self, x):
        return jnp.stack([x[..., 0], x[..., 1] + self.by * (x[..., 0] ** 2 - 1)], axis=-1)

    def _inverse(self, y):
        return jnp.stack([y[..., 0], y[..., 1] - self.by * (y[..., 0] ** 2 - 1)], axis=-1)

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        return jnp.zeros(x.shape[:-1])


class Skew(_By):
    """Each coordinate x → (exp(s·x) − 1)/s: long to the right."""

    def __call__(self, x):
        return jnp.expm1(self.by * x) / self.by

    def _inverse(self, y):
        # Below the lowest value there is: far away, rather than no number.
        return jnp.log(jnp.maximum(1 + self.by * y, 1e-12)) / self.by

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        return jnp.sum(self.by * x, axis=-1)


def normal(scale=0.3, mean=(0.0, 0.0)):
    return dist.MultivariateNormal(jnp.asarray(mean), scale**2 * jnp.array([[1.0, 0.3], [0.3, 1.0]]))


def scaled(size, *transforms):
    wide = dist.transforms.IndependentTransform(dist.transforms.AffineTransform(0.0, size), 1)
    return dist.TransformedDistribution(dist.Normal(jnp.zeros(2), 1.0).to_event(1), [*transforms, wide])


def shape(kind):
    """Return the true distribution of the random effects of CL and V."""
    if kind == "normal":
        return normal()
    if kind == "banana":
        return scaled(0.25, Bend(0.9))
    if kind == "skewed":
        return scaled(0.25, Skew(0.7))
    centres = jnp.array([[-0.35, 0.2], [0.5, -0.25]])
    narrow = dist.MultivariateNormal(centres, 0.12**2 * jnp.eye(2))
    return dist.MixtureSameFamily(dist.Categorical(jnp.array([SHARE, 1 - SHARE])), narrow)


def respond(pop, eta, cl=TYPICAL["CL"], v=TYPICAL["V"], ka=KA, sigma=SIGMA):
    """Observe one compartment with oral doses, log-normal error."""
    CL, V = cl * jnp.exp(eta[..., 0]), v * jnp.exp(eta[..., 1])
    conc = hx.pk.one_compartment(pop, CL=CL, V=V, ka=ka)
    # At the dose it is 0, and the logarithm of 0 has no slope.
    hx.observe("cp", dist.LogNormal(jnp.log(jnp.where(conc > 0, conc, 1.0)), sigma), pop)


def truth(kind):
    """Return the program that makes the data, without parameters."""

    def model(pop):
        numpyro.param("nothing", 0.0)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            respond(pop, numpyro.sample("eta", shape(kind)))

    return model


def gaussian(pop):
    """The program with normal random effects."""
    cl = numpyro.param("cl", 2.5, constraint=POSITIVE)
    v = numpyro.param("v", 25.0, constraint=POSITIVE)
    ka = numpyro.param("ka", 1.0, constraint=POSITIVE)
    sigma = numpyro.param("sigma", 0.1, constraint=POSITIVE)
    tril = numpyro.param("tril", 0.3 * jnp.eye(2), constraint=constraints.lower_cholesky)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.MultivariateNormal(jnp.zeros(2), scale_tril=tril))
        respond(pop, eta, cl, v, ka, sigma)


class Made(NamedTuple):
    pop: hx.Population
    eta: np.ndarray


def simulated(kind, n, seed, model=None, pop=None):
    """Return a population with data, and the random effects that made them."""
    if pop is None:
        pop = design(n)
    drawn = hx.simulate(model or truth(kind), pop, seed=seed)
    values = np.where(pop.mask["cp"], drawn["cp"].values[0], np.nan)
    return Made(pop.with_dv(cp=values), drawn["eta"].values[0] if "eta" in drawn else None)


def design(n, **covariates):
    """Return n subjects with a dose of 100, twelve samples, and these covariates, arrays by subject."""
    blank = {"cp": np.zeros(len(TIMES))}
    return hx.Population.from_subjects(
        hx.Subject(
            k + 1,
            regimen=hx.Regimen(100.0),
            times=TIMES,
            observations=blank,
            covariates={name: values[k] for name, values in covariates.items()},
        )
        for k in range(n)
    )


# -- covariates ------------------------------------------------------------------------------------------------------

UNEXPLAINED = 0.2


def typical(x1, x2):
    """Return the means of the random effects of CL and V: a nonlinear effect, and an interaction."""
    return jnp.stack([0.4 * jnp.tanh(1.5 * x1) + 0.2 * x1 * x2, 0.25 * jnp.cos(1.5 * x2) - 0.15 * x1 * x2], axis=-1)


def by_covariates(pop):
    """The program that makes data with two covariates that matter, without parameters."""
    numpyro.param("nothing", 0.0)
    mean = typical(pop.covariates["x1"], pop.covariates["x2"])
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        respond(pop, numpyro.sample("eta", normal(UNEXPLAINED, mean)))


def with_covariates(n, seed, noise=5):
    """Return a population with data, two covariates that matter and some that do not, and its random effects."""
    rng = np.random.default_rng(seed)
    names = ["x1", "x2", *(f"noise{k}" for k in range(noise))]
    return simulated(None, n, seed, by_covariates, design(n, **{name: rng.normal(size=n) for name in names}))


def by_score(effect):
    """Return the program whose clearance depends on a score, without parameters."""

    def model(pop):
        numpyro.param("nothing", 0.0)
        score = pop.covariates["score"]
        mean = jnp.stack([effect * score, jnp.zeros_like(score)], axis=-1)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            respond(pop, numpyro.sample("eta", normal(UNEXPLAINED, mean)))

    return model
