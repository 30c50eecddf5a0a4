"""Models shared by the tests: small, and the same objects everywhere, so that compiled functions are shared."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd

import hierax as hx

POSITIVE = dist.constraints.positive


def theophylline(pop):
    """One compartment oral; starts are those of the published fixed point."""
    ka = numpyro.param("ka", float(np.exp(0.45)), constraint=POSITIVE)
    cl = numpyro.param("cl", float(np.exp(1.0)), constraint=POSITIVE)
    v = numpyro.param("v", float(np.exp(3.45)), constraint=POSITIVE)
    omega = numpyro.param("omega", jnp.sqrt(jnp.array([0.6, 0.3, 0.1])), constraint=POSITIVE)
    sigma = numpyro.param("sigma", 0.7, constraint=POSITIVE)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, omega).to_event(1))
        ka_i = numpyro.deterministic("KA", ka * jnp.exp(eta[..., 0]))
        cl_i = numpyro.deterministic("CL", cl * jnp.exp(eta[..., 1]))
        v_i = numpyro.deterministic("V", v * jnp.exp(eta[..., 2]))
        conc = hx.pk.one_compartment(pop, CL=cl_i, V=v_i, ka=ka_i)
        hx.observe("dv", dist.Normal(conc, sigma), pop)


# Of the posterior of Theophylline.
PRIORS = {
    "ka": dist.LogNormal(0.5, 1.0),
    "cl": dist.LogNormal(1.0, 1.0),
    "v": dist.LogNormal(3.5, 1.0),
    "omega": dist.HalfNormal(0.5),
    "sigma": dist.HalfNormal(1.0),
}


def theophylline_population(without_zero=False):
    frame = hx.datasets.load("theophylline")
    if without_zero:
        frame = frame[~((frame["EVID"] == 0) & (frame["TIME"] == 0))]
    return hx.read_nonmem(frame, covariates=["WT"])


def _random_lines(full):
    def model(pop):
        beta = numpyro.param("beta", jnp.array([250.0, 10.0]))
        if full:
            spread = numpyro.param(
                "Omega", jnp.diag(jnp.array([600.0, 40.0])), constraint=dist.constraints.positive_definite
            )
        else:
            spread = numpyro.param("omega", jnp.sqrt(jnp.array([600.0, 40.0])), constraint=POSITIVE)
        sigma = numpyro.param("sigma", float(np.sqrt(650.0)), constraint=POSITIVE)
        prior = dist.MultivariateNormal(jnp.zeros(2), spread) if full else dist.Normal(0.0, spread).to_event(1)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", prior)
            line = beta[0] + eta[..., 0] + (beta[1] + eta[..., 1]) * pop.times
            hx.observe("dv", dist.Normal(line, sigma), pop)

    return model


lines_full = _random_lines(full=True)
lines_diagonal = _random_lines(full=False)

WANG = [
    (10.68, 3.6837),
    (10.402, 6.454),
    (9.8814, 5.8565),
    (9.3408, 5.6209),
    (10.082, 6.7583),
    (9.8938, 6.5049),
    (9.8908, 6.9557),
    (10.234, 6.4488),
    (9.9882, 6.7112),
    (9.6736, 6.6402),
]


def wang_population():
    rows = [(i + 1, t, y) for i, pair in enumerate(WANG) for t, y in zip((0.0, 1.0), pair, strict=True)]
    return hx.read_nonmem(pd.DataFrame(rows, columns=["ID", "TIME", "DV"]))


def _wang(proportional):
    def model(pop):
        rate = numpyro.param("rate", 0.5, constraint=POSITIVE)
        omega = numpyro.param("omega", 0.2, constraint=POSITIVE)
        sigma = numpyro.param("sigma", float(np.sqrt(0.1)), constraint=POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, omega))
            f = 10.0 * jnp.exp(-rate * jnp.exp(eta) * pop.times)
            hx.observe("dv", dist.Normal(f, sigma * f if proportional else sigma), pop)

    return model


wang_proportional = _wang(proportional=True)
wang_additive = _wang(proportional=False)


def orange(pop):
    """Logistic growth, SSlogis; Asym random."""
    asym = numpyro.param("Asym", 180.0)
    xmid = numpyro.param("xmid", 700.0)
    scal = numpyro.param("scal", 300.0)
    omega = numpyro.param("omega", 30.0, constraint=POSITIVE)
    sigma = numpyro.param("sigma", 10.0, constraint=POSITIVE)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, omega))
        curve = (asym + eta) / (1 + jnp.exp(-(pop.times - xmid) / scal))
        hx.observe("dv", dist.Normal(curve, sigma), pop)


def indometh(pop):
    """Sum of two exponentials, SSbiexp; A1, lrc1 and A2 random, diagonal."""
    a1 = numpyro.param("A1", 2.8)
    lrc1 = numpyro.param("lrc1", 0.8)
    a2 = numpyro.param("A2", 0.5)
    lrc2 = numpyro.param("lrc2", -1.3)
    omega = numpyro.param("omega", jnp.array([0.5, 0.2, 0.1]), constraint=POSITIVE)
    sigma = numpyro.param("sigma", 0.1, constraint=POSITIVE)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, omega).to_event(1))
        first = (a1 + eta[..., 0]) * jnp.exp(-jnp.exp(lrc1 + eta[..., 1]) * pop.times)
        second = (a2 + eta[..., 2]) * jnp.exp(-jnp.exp(lrc2) * pop.times)
        hx.observe("dv", dist.Normal(first + second, sigma), pop)


def phenobarb(pop):
    """One compartment, multiple iv doses; log CL and log V random, diagonal."""
    cl = numpyro.param("cl", 0.006, constraint=POSITIVE)
    v = numpyro.param("v", 1.4, constraint=POSITIVE)
    omega = numpyro.param("omega", jnp.array([0.4, 0.4]), constraint=POSITIVE)
    sigma = numpyro.param("sigma", 3.0, constraint=POSITIVE)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, omega).to_event(1))
        conc = hx.pk.one_compartment(pop, CL=cl * jnp.exp(eta[..., 0]), V=v * jnp.exp(eta[..., 1]))
        hx.observe("dv", dist.Normal(conc, sigma), pop)


def oral(pop):
    """One compartment, first-order absorption, proportional error; starts away from the truth of the simulations."""
    cl = numpyro.param("cl", 3.0, constraint=POSITIVE)
    v = numpyro.param("v", 50.0, constraint=POSITIVE)
    ka = numpyro.param("ka", 1.5, constraint=POSITIVE)
    omega = numpyro.param("omega", 0.2 * jnp.ones(3), constraint=POSITIVE)
    sigma = numpyro.param("sigma", 0.3, constraint=POSITIVE)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, omega).to_event(1))
        cl_i, v_i, ka_i = cl * jnp.exp(eta[..., 0]), v * jnp.exp(eta[..., 1]), ka * jnp.exp(eta[..., 2])
        conc = hx.pk.one_compartment(pop, CL=cl_i, V=v_i, ka=ka_i)
        hx.observe("dv", dist.Normal(conc, sigma * conc), pop)


def oral_design(n):
    """Return 12 doses a day apart; 57 samples: dense after the first and the last dose, two a day between."""
    first = [0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 23.9]
    between = [24.0 * day + hour for day in range(1, 11) for hour in (1.0, 23.9)]
    last = [264 + hour for hour in (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 30, 36, 48, 60, 72)]
    return hx.Population.from_grid(hx.Regimen(100, interval=24, count=12), first + between + last, n=n)
