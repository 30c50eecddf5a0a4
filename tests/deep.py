"""Models of the indirect-response population: the true structure, wrong ones, and networks for the drug's effect."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from indirect import HORIZON, POSITIVE, TRUTH, hill, regimen, states

import hierax as hx

SIGMA_R, SIGMA_C = 0.1, 0.05
# Neutral starts: none of them is the truth, nor close to it.
STARTS = {"Ka": 0.7, "CL": 0.7, "Vc": 1.5, "Kin": 1.5, "Kout": 1.0}


def respond(pop, p, effect, shared=None):
    """Solve for the response to ``effect(c, args)``, and observe concentration and response."""

    def field(t, y, args):
        c = y["central"] / args["Vc"]
        absorbed = args["Ka"] * y["depot"]
        return {
            "depot": -absorbed,
            "central": absorbed - args["CL"] * c,
            "R": args["Kin"] * (1 + effect(c, args)) - args["Kout"] * y["R"],
        }

    start = {"depot": 0.0, "central": 0.0, "R": p["Kin"] / p["Kout"]}
    y = hx.solve_ode(pop, field, start, p, shared=shared, solver=hx.Grid(1e-4))
    sigma_c = numpyro.param("sigma_c", 0.2, constraint=POSITIVE)
    sigma_r = numpyro.param("sigma_r", 0.2, constraint=POSITIVE)
    hx.observe("c", dist.Normal(y["central"] / p["Vc"], sigma_c), pop)
    hx.observe("R", dist.Normal(y["R"], sigma_r), pop)


def kinetics(eta):
    """Return the parameters that are no part of the drug's effect; Ka and Kout have random effects."""
    p = {name: numpyro.param(name, value, constraint=POSITIVE) for name, value in STARTS.items()}
    return p | {"Ka": p["Ka"] * jnp.exp(eta[..., 0]), "Kout": p["Kout"] * jnp.exp(eta[..., 1])}


def effects(pop, *more):
    """Return the random effects of Ka and Kout, and of the named parameters."""
    names = ("Ka", "Kout", *more)
    omega = numpyro.param("omega", 0.3 * jnp.ones(len(names)), constraint=POSITIVE)
    return numpyro.sample("eta", dist.Normal(jnp.zeros(len(names)), omega).to_event(1))


def structured(kind="hill"):
    """Return the true structure (Hill), Emax (random SC50, but a Hill coefficient of 1), or an effect linear in c."""

    def model(pop):
        smax = numpyro.param("Smax", 1.5, constraint=POSITIVE)
        sc50 = numpyro.param("SC50", 1.0, constraint=POSITIVE) if kind != "linear" else None
        n = numpyro.param("n", 1.5, constraint=POSITIVE) if kind == "hill" else None
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = effects(pop, *{"hill": ("Smax", "n"), "emax": ("Smax", "SC50"), "linear": ("Smax",)}[kind])
            p = kinetics(eta) | {"Smax": smax * jnp.exp(eta[..., 2])}
            if kind == "hill":
                p |= {"SC50": sc50, "n": n * jnp.exp(eta[..., 3])}
            if kind == "emax":
                p["SC50"] = sc50 * jnp.exp(eta[..., 3])

            def effect(c, args):
                if kind == "linear":
                    return args["Smax"] * c
                return hill(c, args["Smax"], args["SC50"], args["n"] if kind == "hill" else 1.0)

            respond(pop, p, effect)

    return model


def deep(inputs=2, width=6, depth=1, skip=0.3):
    """Return the model whose effect is a network of the concentration and ``inputs`` random effects."""
    module = network(inputs, width, depth, skip)

    def model(pop):
        net = hx.nn.network("effect", module, input_shape=(1 + inputs,))
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = effects(pop)
            z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([inputs]).to_event(1))

            def effect(c, args):
                return args["net"](jnp.concatenate([c[None], args["z"]]))[0]

            respond(pop, kinetics(eta) | {"z": z}, effect, shared={"net": net})

    return model


def truth(pop):
    """The model that makes the data."""
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(jnp.zeros(4), 0.3).to_event(1))
        p = {name: TRUTH[name] for name in ("CL", "Vc", "Kin", "SC50")}
        p |= {name: TRUTH[name] * jnp.exp(eta[..., k]) for k, name in enumerate(("Ka", "Kout", "Smax", "n"))}
        y = states(pop, p)
        hx.observe("c", dist.Normal(y["central"] / p["Vc"], SIGMA_C), pop)
        hx.observe("R", dist.Normal(y["R"], SIGMA_R), pop)


def simulated(n, seed, samples=15):
    """Return a population with data of both endpoints, and what made them: random effects, free of noise."""
    rng = np.random.default_rng(seed)
    blank = {"c": np.zeros(samples), "R": np.zeros(samples)}
    subjects = [
        hx.Subject(k + 1, regimen=regimen(rng), times=np.sort(rng.uniform(0.0, HORIZON, samples)), observations=blank)
        for k in range(n)
    ]
    pop = hx.Population.from_subjects(subjects)
    drawn = hx.simulate(truth, pop, seed=seed)
    data = {name: np.where(pop.mask[name], drawn[name].values[0], np.nan) for name in ("c", "R")}
    return pop.with_dv(**data), drawn


def network(inputs, width=6, depth=1, skip=0.3):
    """Return the network of the drug's effect, of the concentration and ``inputs`` random effects."""
    return hx.nn.LogLinear(hx.nn.MLP(outputs=1 + inputs, width=width, depth=depth), skip=skip)


def individual(which):
    """Return the model whose effect is a network with weights of the subject's own."""

    def model(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = effects(pop)
            net = hx.nn.individualise("effect", network(0), input_shape=(1,), which=which)

            def effect(c, args):
                return args["net"](c[None], args["w"])[0]

            respond(pop, kinetics(eta) | {"w": net.eta}, effect, shared={"net": net.at})

    return model


def fit_deep(train, inputs, strength=0.05, evaluations=200, seed=0, model=None):
    """Fit with a penalised network by FOCE, from neutral constants and an effect that hardly depends on anything."""
    weights = network(inputs).init(jax.random.key(seed), jnp.ones(1 + inputs))["params"]
    search = hx.QuasiNewton(gtol=0.1, max_iter=evaluations)
    return hx.fit(
        model or deep(inputs),
        train,
        hx.FOCE(optimiser=search),
        init={"effect$params": weights},
        priors={"effect$params": hx.nn.l2(strength)},
        progress=False,
    )
