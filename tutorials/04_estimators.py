# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # One program, every estimator
#
# The program of the first tutorial is fitted by every kind of estimator. They do not all estimate the same thing. Each
# result says what it computed, and `hx.compare` refuses to compare what is not comparable.

# %%
import time

import arviz as az
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd

import hierax as hx

numpyro.enable_x64()
pop = hx.read_nonmem(hx.datasets.load("theophylline"))


def model(pop):
    positive = dist.constraints.positive
    ka = numpyro.param("ka", 1.5, constraint=positive)
    cl = numpyro.param("cl", 2.7, constraint=positive)
    v = numpyro.param("v", 32.0, constraint=positive)
    omega = numpyro.param("omega", 0.3 * jnp.ones(3), constraint=positive)
    sigma = numpyro.param("sigma", 0.7, constraint=positive)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, omega).to_event(1))
        conc = hx.pk.one_compartment(
            pop, ka=ka * jnp.exp(eta[..., 0]), CL=cl * jnp.exp(eta[..., 1]), V=v * jnp.exp(eta[..., 2])
        )
        hx.observe("dv", dist.Normal(conc, sigma), pop)


# %% [markdown]
# ## Maximum likelihood
#
# FO, FOCE, Laplace and AGQ maximise approximations of the marginal likelihood. FO is the coarsest, and AGQ becomes as
# accurate as you like with more nodes. SAEM maximises the likelihood itself, with Monte-Carlo noise. VI maximises a
# lower bound of it. With one sample VI estimates the SDs of random effects too small; with 64 samples it is equivalent
# to maximum likelihood here.

# %%
estimators = {
    "FO": hx.FO(),
    "FOCE": hx.FOCE(),
    "Laplace": hx.Laplace(),
    "AGQ(7)": hx.AGQ(7),
    "SAEM": hx.SAEM(),
    "VI, mean-field": hx.VI(guide=hx.guides.Normal("mean-field"), steps=2000),
    "VI, K = 64": hx.VI(samples=64, steps=2000),
}
fits, rows = {}, {}
for name, estimator in estimators.items():
    began = time.perf_counter()
    fit = hx.fit(model, pop, estimator, progress=False)
    seconds = time.perf_counter() - began
    fits[name] = fit
    # All estimates are judged by the same likelihood, computed by quadrature.
    exact = hx.log_likelihood(fit, hx.AGQ(9))
    omega = dict(zip(("omega ka", "omega CL", "omega V"), fit.params["omega"], strict=True))
    named = {key: float(fit.params[key]) for key in ("ka", "cl", "v", "sigma")}
    rows[name] = {**named, **omega, "exact -2 log L": exact.minus_two, "seconds (cold)": seconds}
table = pd.DataFrame.from_dict(rows, orient="index")
print(table.round(3).to_string())

# %% [markdown]
# ## Bayes
#
# Priors are passed beside the program, and `param` sites are lifted: they are sampled from these priors. NUTS samples
# parameters and random effects together. Hierax samples each random effect centred or as a standard normal, depending
# on how much the data say about it. There are few draws here, so that the tutorial is quick.

# %%
priors = {
    "ka": dist.LogNormal(0.5, 1.0),
    "cl": dist.LogNormal(1.0, 1.0),
    "v": dist.LogNormal(3.5, 1.0),
    "omega": dist.HalfNormal(0.5),
    "sigma": dist.HalfNormal(1.0),
}
nuts = hx.fit(model, pop, hx.NUTS(warmup=500, draws=500), priors=priors, progress=False, init=fits["FOCE"])
print(nuts.summary())
best = hx.fit(model, pop, hx.MAP(), priors=priors, progress=False, init=fits["FOCE"])
print(best.summary().to_string(float_format="{:.4g}".format))

# %% [markdown]
# ## Side by side

# %%
names = ["ka", "cl", "v", "omega ka", "omega CL", "omega V", "sigma"]
draws = nuts.to_arviz()["posterior"]
posterior = {key: draws[key].values.ravel() for key in ("ka", "cl", "v", "sigma")}
posterior |= {f"omega {part}": draws["omega"].values[..., k].ravel() for k, part in enumerate(("ka", "CL", "V"))}
figure, axes = plt.subplots(1, len(names), figsize=(15, 3.6), sharey=True)
labels = [*fits, "NUTS (median, 90 %)"]
for axis, name in zip(axes, names, strict=True):
    axis.plot(table[name], np.arange(len(fits)), "o")
    low, mid, high = np.quantile(posterior[name], [0.05, 0.5, 0.95])
    axis.plot([low, high], [len(fits)] * 2, color="C1")
    axis.plot(mid, len(fits), "s", color="C1")
    axis.set_title(name)
axes[0].set_yticks(np.arange(len(labels)), labels)
axes[0].invert_yaxis()
figure.tight_layout()
figure.savefig("estimators.png", dpi=120)

# %% [markdown]
# ArviZ can read the same draws.

# %%
print(az.summary(nuts.to_arviz(), var_names=["ka", "cl", "v", "omega", "sigma"]))

# %% [markdown]
# ## What each costs, and when it fails
#
# | estimator | computes | fails when |
# |---|---|---|
# | FO | likelihood of a linearised model | random effects are large or act strongly nonlinearly: biased |
# | FOCE | Gaussian around each mode, by Fisher information | few data per subject, several modes, non-Gaussian data |
# | Laplace | the same, by the full Hessian | few data per subject, several modes |
# | AGQ(n) | the likelihood, as n grows | more than three or four random effects (d of them need nᵈ nodes) |
# | SAEM | the likelihood, with Monte-Carlo noise | many parameters without random effects: slow |
# | VI | a lower bound | K = 1: SDs of random effects too small where data are sparse |
# | NUTS | the posterior | priors are missing; many subjects: slow |
# | MarginalNUTS | the posterior of an approximation | its approximation fails |
# | MAP | mode of prior × approximation | its approximation fails |
#
# "Converged" at the end of each fit says that its own criterion is met. It does not say that its approximation is good.
# For that, look at the exact −2 log L above.

# %%
print({name: f"{fit.result.name}: {fit.why}" for name, fit in {**fits, "NUTS": nuts, "MAP": best}.items()})
