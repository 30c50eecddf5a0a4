# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Theophylline, from records to a report
#
# Twelve subjects took one oral dose of theophylline, and eleven concentrations were measured in each. The model has one
# compartment with first-order absorption, three random effects and an additive residual error.

# %%
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import hierax as hx

numpyro.enable_x64()

# %% [markdown]
# ## Data
#
# The table has NONMEM's columns. Each subject has a dose record, followed by the records of its samples. `Population`
# holds them as padded arrays.

# %%
records = hx.datasets.load("theophylline")
print(records.head(4))
pop = hx.read_nonmem(records, covariates=["WT"])
print(pop)

# %% [markdown]
# ## Model
#
# The model is a NumPyro function of the population. Subjects are batch dimension −2, and records are −1. Random effects
# are sampled inside the plate, and individual parameters have shape `(subject, 1)`.

# %%
positive = dist.constraints.positive


def model(pop):
    ka = numpyro.param("ka", 1.0, constraint=positive)
    cl = numpyro.param("cl", 3.0, constraint=positive)
    v = numpyro.param("v", 30.0, constraint=positive)
    omega = numpyro.param("omega", 0.3 * jnp.ones(3), constraint=positive)
    sigma = numpyro.param("sigma", 1.0, constraint=positive)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, omega).to_event(1))
        ka_i = numpyro.deterministic("KA", ka * jnp.exp(eta[..., 0]))
        cl_i = numpyro.deterministic("CL", cl * jnp.exp(eta[..., 1]))
        v_i = numpyro.deterministic("V", v * jnp.exp(eta[..., 2]))
        conc = hx.pk.one_compartment(pop, CL=cl_i, V=v_i, ka=ka_i)
        hx.observe("dv", dist.Normal(conc, sigma), pop)


_ = hx.check(model, pop)

# %% [markdown]
# ## The objective at fixed parameters
#
# At the same parameters the approximations differ by O(1). A value can therefore be compared only with values of the
# same approximation.

# %%
for estimator in (hx.FO(), hx.FOCE(), hx.Laplace(), hx.AGQ(5)):
    print(f"{estimator.label:28s} OFV {hx.evaluate(model, pop, {}, estimator).ofv:.4f}")

# %% [markdown]
# ## Fit

# %%
fit = hx.fit(model, pop, hx.FOCE(), progress=False)
print(fit.summary())

# %% [markdown]
# Is this the only optimum? It is not even the lowest one. The concentration curve of one compartment stays the same if
# its two rates are exchanged ("flip-flop kinetics": absorption is slower than elimination). The likelihood therefore
# has a second optimum. A search ends in the optimum near which it starts, here near `init=`. What is known of
# theophylline decides between the two: its volume is about half a litre per kilogram, and it is absorbed within an hour
# or two.

# %%
flipped = hx.fit(model, pop, hx.FOCE(), init={"ka": 0.09, "v": 1.7}, progress=False)
for name, one in (("literature", fit), ("flip-flop", flipped)):
    ka, ke, v = one.params["ka"], one.params["cl"] / one.params["v"], one.params["v"]
    print(
        f"{name:10s} {one.result}, OFV {one.ofv:.3f}: absorption {ka:.3f}/h, elimination {ke:.3f}/h, volume {v:.1f} L"
    )

# %% [markdown]
# Individual results are the empirical Bayes estimates, and a table with one row per record that has predictions and
# residuals.

# %%
print(fit.ebe["CL"].to_series().head())
print(fit.table()[["ID", "TIME", "DV", "PRED", "IPRED", "IWRES"]].head())

# %% [markdown]
# ## Check
#
# A visual predictive check, and a report with all results in one HTML file.

# %%
check = hx.vpc(fit, n=200)
print(check.table.head(3))
path = hx.report(fit, "theophylline.html", title="Theophylline by FOCE")
print(path)
