# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Doses: records, regimens, steady states
#
# This tutorial shows how dosing histories are written, what the closed forms compute from them, and how a design is
# simulated and fitted.

# %%
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd

import hierax as hx

numpyro.enable_x64()

# %% [markdown]
# ## A regimen by hand
#
# The regimen is a loading dose by infusion over two hours, then a tablet twice a day. Route 1 is the depot of an oral
# model, and route 2 is the central compartment.

# %%
regimen = hx.Regimen(100, route=2, duration=2) + hx.Regimen(80, time=12, interval=12, count=5)
print(regimen.to_frame())

pop = hx.Population.from_grid(regimen, np.linspace(0, 96, 97), {"WT": [50.0, 70.0, 90.0]})
size = pop.covariates["WT"] / 70
clearance = {"CL": 4 * size**0.75, "V1": 30 * size, "Q": 2 * size**0.75, "V2": 40 * size}
amounts = hx.pk.two_compartment(pop, **clearance, ka=0.8, F={1: 0.7}, lag={1: 0.5}, output="concentrations")
print({name: value.shape for name, value in amounts.items()})

# %% [markdown]
# ## Steady states
#
# A dose record with SS = 1 starts at the state that the regimen would have reached if it had always run. The same curve
# results from many doses.

# %%
always = hx.Population.from_grid(hx.Regimen(80, interval=12, steady=1), [0.0, 6.0, 11.0])
many = hx.Population.from_grid(hx.Regimen(80, interval=12, count=60), [708.0, 714.0, 719.0])
same = {"CL": 4.0, "V": 30.0, "ka": 0.8}
print(hx.pk.one_compartment(always, **same)[0, 1:])
print(hx.pk.one_compartment(many, **same)[0, 1:])

# %% [markdown]
# ## A table with mistakes
#
# All mistakes are reported at once, each with its row and what to do. `err.problems` is a table of them.

# %%

table = pd.DataFrame(
    {"ID": 1, "TIME": [0.0, 4.0, 2.0], "DV": [None, 5.0, None], "AMT": [100.0, 0, 0], "ADDL": [3, 0, 0]}
)
try:
    hx.read_nonmem(table)
except hx.DataError as err:
    print(err)

# %% [markdown]
# ## Simulate a design, then fit it


# %%
def model(pop):
    positive = dist.constraints.positive
    cl = numpyro.param("cl", 3.0, constraint=positive)
    v = numpyro.param("v", 40.0, constraint=positive)
    tlag = numpyro.param("tlag", 0.5, constraint=dist.constraints.interval(0.0, 2.0))
    omega = numpyro.param("omega", 0.3 * jnp.ones(2), constraint=positive)
    sigma = numpyro.param("sigma", 0.2, constraint=positive)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, omega).to_event(1))
        CL = numpyro.deterministic("CL", cl * jnp.exp(eta[..., 0]))
        V = numpyro.deterministic("V", v * jnp.exp(eta[..., 1]))
        conc = hx.pk.one_compartment(pop, CL=CL, V=V, ka=0.8, lag=tlag)
        hx.observe("dv", dist.Normal(conc, sigma * conc + 0.01), pop)


design = hx.Population.from_grid(hx.Regimen(80, interval=12, count=4), [1.0, 2.0, 4.0, 8.0, 24.0, 40.0, 48.0], n=30)
truth = {"cl": 4.0, "v": 30.0, "tlag": 0.7, "omega": 0.25 * np.ones(2), "sigma": 0.1}
drawn = hx.simulate(model, design, params=truth, seed=1)
data = design.with_dv(dv=drawn["dv"].values[0])
fit = hx.fit(model, data, hx.FOCE(), progress=False)
print(fit.summary())

# %%
hx.plot.data(data, log=True)

# %% [markdown]
# What if the same daily amount were taken once a day? The fit predicts any regimen at any times.

# %%
daily = data.with_regimen(hx.Regimen(160, interval=24, count=2)).at_times(np.linspace(0, 48, 25))
print(hx.predict(fit, daily)["PRED_dv"][0].values.round(2))
