"""Fifteen thousand weights and sixteen random effects: myelosuppression, by VI.

Neutrophils mature in a chain (Friberg et al. 2002): proliferating cells, three transit compartments, the circulation;
Prol' = ktr·Prol·((1 − E)·(Circ₀/Circ)^γ − 1), each transit moves on at ktr = 4/MTT, and Circ' = ktr·(T₃ − Circ). The
drug kills as E = Emax·c/(EC50 + c), c from a one-compartment bolus whose CL and V are known for each subject. Circ₀,
MTT and EC50 are individual. The model with networks knows the chain; a large network makes its individual parameters
and four features of the drug's effect from sixteen standard normal random effects, and a small one the effect from
the concentration and those features.
"""

import resource

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from indirect import POSITIVE

import hierax as hx

TRUTH = {"circ": 5.0, "mtt": 5.0, "gamma": 0.17, "emax": 0.9, "ec50": 0.5}
OMEGA = {"circ": 0.3, "mtt": 0.2, "ec50": 0.4}
SIGMA, EFFECTS, DAYS = 0.2, 16, np.array([0, 2, 4, 6, 8, 10, 12, 14, 17, 20, 23, 26, 29, 32, 35, 38, 42.0])
pytestmark = [
    pytest.mark.study,
    pytest.mark.filterwarnings("ignore:The importance weights"),
    pytest.mark.filterwarnings(r"ignore:The fit did not converge \((max_iterations|no_progress)\)"),
]


def chain(pop, p, effect):
    """Solve the chain, and observe neutrophils with log-normal error."""
    p = p | {"CL": pop.covariates["CL"], "V": pop.covariates["V"]}

    def field(t, y, args):
        ktr = 4 / args["mtt"]
        feedback = (args["circ"] / jnp.maximum(y["circ"], 1e-3)) ** args["gamma"]
        born = ktr * y["prol"] * (1 - effect(y["drug"] / args["V"], args)) * feedback
        return {
            "drug": -args["CL"] / args["V"] * y["drug"],
            "prol": born - ktr * y["prol"],
            "t1": ktr * (y["prol"] - y["t1"]),
            "t2": ktr * (y["t1"] - y["t2"]),
            "t3": ktr * (y["t2"] - y["t3"]),
            "circ": ktr * (y["t3"] - y["circ"]),
        }

    start = {"drug": 0.0} | dict.fromkeys(("prol", "t1", "t2", "t3", "circ"), p["circ"])
    y = hx.solve_ode(pop, field, start, p, doses={1: "drug"}, solver=hx.Grid(1e-4))
    sigma = numpyro.param("sigma", 0.3, constraint=POSITIVE)
    hx.observe("anc", dist.LogNormal(jnp.log(jnp.maximum(y["circ"], 1e-3)), sigma), pop)


def parametric(link):
    """Return the true structure ("emax"), or the one whose effect is linear in the concentration."""

    def model(pop):
        names = ("circ", "mtt", "ec50") if link == "emax" else ("circ", "mtt", "slope")
        starts = {"circ": 4.0, "mtt": 4.0, "ec50": 1.0, "slope": 0.2}
        p = {name: numpyro.param(name, starts[name], constraint=POSITIVE) for name in names}
        gamma = numpyro.param("gamma", 0.2, constraint=POSITIVE)
        emax = numpyro.param("emax", 0.7, constraint=POSITIVE) if link == "emax" else None
        omega = numpyro.param("omega", 0.3 * jnp.ones(3), constraint=POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(jnp.zeros(3), omega).to_event(1))
            own = {name: value * jnp.exp(eta[..., k]) for k, (name, value) in enumerate(p.items())} | {"gamma": gamma}

            def effect(c, args):
                return emax * c / (args["ec50"] + c) if link == "emax" else args["slope"] * c

            chain(pop, own, effect)

    return model


INDIVIDUAL = hx.nn.MLP(outputs=6, width=109, depth=2, activation="tanh")
EFFECT = hx.nn.ZeroAtZero(hx.nn.MLP(width=16, depth=2))


def deep(pop):
    """The chain is known; what differs between subjects, and the drug's effect, are networks."""
    individual = hx.nn.network("individual", INDIVIDUAL, input_shape=(EFFECTS,))
    net = hx.nn.network("effect", EFFECT, input_shape=(5,))
    p = {name: numpyro.param(name, value, constraint=POSITIVE) for name, value in (("circ", 4.0), ("mtt", 4.0))}
    gamma = numpyro.param("gamma", 0.2, constraint=POSITIVE)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([EFFECTS]).to_event(1))
        out = individual(z)
        own = {
            "circ": p["circ"] * jnp.exp(out[..., 0]),
            "mtt": p["mtt"] * jnp.exp(0.3 * jnp.tanh(out[..., 1])),
            "gamma": gamma,
            "features": out[..., 2:],
        }

        def effect(c, args):
            # Concentrations reach from 0 to tens: their logarithm is of order one.
            return net(jnp.concatenate([jnp.log1p(c)[None], args["features"]]))[0]

        chain(pop, own, effect)


def simulated(count, seed):
    rng = np.random.default_rng(seed)
    subjects = []
    for k in range(count):
        regimen = hx.Regimen(rng.uniform(20, 200)) + hx.Regimen(rng.uniform(20, 200), time=21.0)
        covariates = {"CL": 14.0 * np.exp(rng.normal(0, 0.2)), "V": 20.0 * np.exp(rng.normal(0, 0.2))}
        blank = {"anc": np.ones(len(DAYS))}
        subjects.append(hx.Subject(k + 1, regimen, DAYS, observations=blank, covariates=covariates))
    pop = hx.Population.from_subjects(subjects)
    omega = np.array([OMEGA[name] for name in ("circ", "mtt", "ec50")])
    drawn = hx.simulate(parametric("emax"), pop, params=TRUTH | {"omega": omega, "sigma": SIGMA}, seed=seed)
    return pop.with_dv(anc=np.where(pop.mask["anc"], drawn["anc"].values[0], np.nan))


def test_fifteen_thousand_weights_find_what_a_wrong_link_cannot():
    train, test = simulated(100, 0), simulated(30, 1000)
    vi = hx.VI(steps=6000, automatic=False, learning_rate=0.01)
    penalty = {"individual$params": hx.nn.l2(0.5), "effect$params": hx.nn.l2(0.05)}
    fit = hx.fit(deep, train, vi, priors=penalty, progress=False)
    count = int(fit.layout.weights().sum())
    print("weights", count, fit.timing, "seconds a step", fit.timing["search"] / len(fit.history), flush=True)
    fits = {"network": fit}
    for link in ("linear", "emax"):
        fits[link] = hx.fit(parametric(link), train, hx.FOCE(), progress=False)
    found = {}
    for name, one in fits.items():
        found[name] = hx.log_likelihood(one, hx.ImportanceSampling(2000), pop=test)
        table = found[name].subjects
        print(
            name, found[name].log_likelihood, "+-", found[name].se, "k < .7:", (table["pareto_k"] < 0.7).mean(),
            "median ESS", table["ess"].median(), one.timing["total"], flush=True,
        )  # fmt: skip
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print("peak memory, GB", memory)
    assert 14_000 <= count <= 16_000
    assert fit.timing["total"] < 30 * 60
    assert memory < 8
    assert found["network"].log_likelihood > found["linear"].log_likelihood
    assert (found["network"].subjects["pareto_k"] < 0.7).mean() >= 0.8
