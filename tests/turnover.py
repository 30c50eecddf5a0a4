"""A turnover model: concentration inhibits the production of a response; 60 subjects, 17 records each."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd

import hierax as hx

POSITIVE = dist.constraints.positive
NAMES = ("ka", "CL", "V", "kout", "EC50")
TRUTH = {"ka": 1.0, "CL": 3.0, "V": 30.0, "kout": 0.1, "EC50": 1.0, "kin": 5.0}
START = {"ka": 0.7, "CL": 4.0, "V": 25.0, "kout": 0.15, "EC50": 1.6, "kin": 6.0}
CP = (0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0, 48.0)
PCA = (1.0, 4.0, 8.0, 12.0, 24.0, 36.0, 48.0, 72.0, 96.0)


def field(t, y, p):
    conc = y["central"] / p["V"]
    absorbed = p["ka"] * y["depot"]
    return {
        "depot": -absorbed,
        "central": absorbed - p["CL"] * conc,
        "R": p["kin"] * (1 - conc / (p["EC50"] + conc)) - p["kout"] * y["R"],
    }


def program(solver=None):
    options = {} if solver is None else {"solver": solver}

    def model(pop):
        typical = {name: numpyro.param(name, value, constraint=POSITIVE) for name, value in START.items()}
        omega = numpyro.param("omega", 0.4 * jnp.ones(len(NAMES)), constraint=POSITIVE)
        prop = numpyro.param("prop", 0.2, constraint=POSITIVE)
        add = numpyro.param("add", 3.0, constraint=POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, omega).to_event(1))
            p = {name: typical[name] * jnp.exp(eta[..., index]) for index, name in enumerate(NAMES)}
            p["kin"] = typical["kin"]
            start = {"depot": 0.0, "central": 0.0, "R": p["kin"] / p["kout"]}
            y = hx.solve_ode(pop, field, start, p, **options)
            conc = y["central"] / p["V"]
            hx.observe("cp", dist.Normal(conc, prop * conc + 0.01), pop)
            hx.observe("pca", dist.Normal(y["R"], add), pop)

    return model


def design(n=60):
    rows = [(0.0, 1, 100.0, 0)] + [(t, 0, 0.0, 1) for t in CP] + [(t, 0, 0.0, 2) for t in PCA]
    frame = pd.DataFrame(rows, columns=["TIME", "EVID", "AMT", "DVID"]).sort_values(
        ["TIME", "EVID"], ascending=[True, False]
    )
    frame = pd.concat([frame.assign(ID=index + 1, DV=np.where(frame["EVID"] == 0, 1.0, np.nan)) for index in range(n)])
    return hx.read_nonmem(frame, endpoints={"cp": 1, "pca": 2})


def simulated(n=60, seed=0):
    """Return data at the truth, SDs 0.3, proportional error 0.1 and additive error 2."""
    pop = design(n)
    truth = TRUTH | {"omega": 0.3 * np.ones(len(NAMES)), "prop": 0.1, "add": 2.0}
    drawn = hx.simulate(program(), pop, params=truth, seed=seed)
    seen = {name: np.where(pop.mask[name], drawn[name].values[0], np.nan) for name in ("cp", "pca")}
    return pop.with_dv(**seen)
