"""The indirect-response experiment: one model and design, shared by tests and benchmarks.

Depot' = −Ka·Depot; Central' = Ka·Depot − CL·Central/Vc; R' = Kin·(1 + h(c)) − Kout·R with c = Central/Vc,
h(c) = Smax·cⁿ/(SC50ⁿ + cⁿ), R(0) = Kin/Kout. Individual Ka, Kout, Smax and n, log-normal with SD 0.3.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import hierax as hx

POSITIVE = dist.constraints.positive
TRUTH = {"Ka": 1.0, "CL": 0.5, "Vc": 2.0, "Kin": 1.0, "Kout": 0.8, "Smax": 2.0, "SC50": 1.5, "n": 2.0}
HORIZON = 48.0


def hill(c, smax, sc50, n):
    """Smax·cⁿ/(SC50ⁿ + cⁿ), smooth where c is 0."""
    ratio = jnp.exp(n * (jnp.log(jnp.maximum(c, 1e-12)) - jnp.log(sc50)))
    return smax * ratio / (1 + ratio)


def field(t, y, p):
    c = y["central"] / p["Vc"]
    absorbed = p["Ka"] * y["depot"]
    return {
        "depot": -absorbed,
        "central": absorbed - p["CL"] * c,
        "R": p["Kin"] * (1 + hill(c, p["Smax"], p["SC50"], p["n"])) - p["Kout"] * y["R"],
    }


def states(pop, p, **options):
    start = {"depot": 0.0, "central": 0.0, "R": p["Kin"] / p["Kout"]}
    return hx.solve_ode(pop, field, start, p, **options)


def regimen(rng):
    """A dose at 0 and at two more times."""
    times = np.concatenate([[0.0], np.cumsum(rng.uniform(6, 14, 2))])
    doses = rng.uniform(5, 20, 3)
    first, *rest = (hx.Regimen(amount, time=time) for time, amount in zip(times, doses, strict=True))
    for one in rest:
        first = first + one
    return first


def design(n, seed=0, samples=15):
    """Return a population without data: three doses a subject, samples at random times of both endpoints."""
    rng = np.random.default_rng(seed)
    subjects = []
    for index in range(n):
        times = np.sort(rng.uniform(0.0, HORIZON, samples))
        subjects.append(hx.Subject(index + 1, regimen=regimen(rng), times=times))
    return hx.Population.from_subjects(subjects)


def model(solver=None, starts=None):
    """Return the program: 4 random effects, 8 population parameters, data of R alone."""
    starts = {**TRUTH, **(starts or {})}
    options = {} if solver is None else {"solver": solver}

    def program(pop):
        names = ("Ka", "Kout", "Smax", "n")
        fixed = {name: starts[name] for name in ("CL", "Vc", "Kin", "SC50")}
        typical = {name: numpyro.param(name, starts[name], constraint=POSITIVE) for name in names}
        typical["Kin"] = numpyro.param("Kin", fixed.pop("Kin"), constraint=POSITIVE)
        typical["SC50"] = numpyro.param("SC50", fixed.pop("SC50"), constraint=POSITIVE)
        omega = numpyro.param("omega", 0.3, constraint=POSITIVE)
        sigma = numpyro.param("sigma", 0.1, constraint=POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(jnp.zeros(4), omega).to_event(1))
            p = {name: typical[name] * jnp.exp(eta[..., k]) for k, name in enumerate(names)}
            p |= {name: typical[name] for name in ("Kin", "SC50")} | fixed
            y = states(pop, p, **options)
            hx.observe("dv", dist.Normal(y["R"], sigma), pop)

    return program
