# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # NLME models are generative models
#
# A nonlinear mixed-effects model draws a subject's random effects, and then its data given these random effects.
# Probabilistic PCA does the same with a linear decoder, and a variational autoencoder with a network as decoder. In a
# pharmacokinetic model the decoder is a mechanism. All three are programs of the same kind, fitted by the same
# function.

# %%
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist

import hierax as hx

numpyro.enable_x64()
positive = dist.constraints.positive
SIZE = 6

# %% [markdown]
# ## Data: curves that differ in one hidden number
#
# Each subject's six values lie on a curve in six dimensions. The position on the curve is a hidden number that nobody
# has recorded.

# %%
rng = np.random.default_rng(2)
hidden = rng.uniform(0, np.pi, 120)
clean = np.stack([np.cos(k / 2 * hidden + k) for k in range(1, SIZE + 1)], axis=1)
data = clean + rng.normal(size=clean.shape) * 0.1


def population(rows):
    return hx.Population.from_subjects(
        [hx.Subject(k + 1, times=np.arange(SIZE), observations={"dv": row}) for k, row in enumerate(rows)]
    )


train, test = population(data[:80]), population(data[80:])

# %% [markdown]
# ## Probabilistic PCA
#
# The decoder is a linear function of one random effect. For this model the approximations of FOCE are exact, and the
# fit is the closed-form solution of Tipping & Bishop (1999).


# %%
def ppca(pop):
    loadings = numpyro.param("loadings", 0.5 * jnp.ones((SIZE, 1)))
    mean = numpyro.param("mean", jnp.zeros(SIZE))
    sigma = numpyro.param("sigma", 0.5, constraint=positive)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([1]).to_event(1))
        hx.observe("dv", dist.Normal(mean + (z @ loadings.T)[..., 0, :], sigma), pop)


linear = hx.fit(ppca, train, hx.FOCE(), progress=False)
spread = np.linalg.eigvalsh(np.cov(data[:80].T, bias=True))
print(f"noise variance {float(linear.params['sigma']) ** 2:.5f}, closed form {spread[:-1].mean():.5f}")

# %% [markdown]
# ## A variational autoencoder
#
# The program is the same, with a network as decoder. VI with an amortised guide trains an encoder together with it. The
# encoder is a network that maps a subject's data to the distribution of its random effect.


# %%
def autoencoder(pop):
    decoder = hx.nn.network("decoder", hx.nn.MLP(outputs=SIZE, width=16), input_shape=(1,))
    sigma = numpyro.param("sigma", 0.5, constraint=positive)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([1]).to_event(1))
        hx.observe("dv", dist.Normal(decoder(z)[..., 0, :], sigma), pop)


vi = hx.VI(guide=hx.guides.Amortised(), steps=6000, automatic=False, learning_rate=0.005)
curved = hx.fit(autoencoder, train, vi, progress=False)
print(f"noise SD: PCA {float(linear.params['sigma']):.3f}, autoencoder {float(curved.params['sigma']):.3f}, truth 0.1")

# %% [markdown]
# ## Encoder and decoder, apart
#
# `fit.embeddings(pop)` is the encoder, also for subjects that the fit has not seen. It returns what the amortised guide
# computes for them, or their EBEs (empirical Bayes estimates). `hx.predict(..., random_effects=)` is the decoder.

# %%
fits = {"PCA": linear, "autoencoder": curved}
codes = {name: fit.embeddings(test) for name, fit in fits.items()}
decoded = {name: hx.predict(fit, test, random_effects=codes[name])["IPRED_dv"] for name, fit in fits.items()}
for name, values in decoded.items():
    print(
        f"{name:12s} RMSE on new subjects, against the curve {np.sqrt(np.mean((values.values - clean[80:]) ** 2)):.3f}"
    )
for name, fit in fits.items():
    print(f"{name:12s} held-out {hx.log_likelihood(fit, hx.AGQ(15), pop=test)}")

# %% [markdown]
# ## Mechanism for a decoder
#
# The random effects of a pharmacokinetic model are such a code as well, but one whose numbers have a meaning:
# clearance, volume, absorption. The mechanism also makes it possible to decode for new doses and new times.


# %%
def theophylline(pop):
    ka = numpyro.param("ka", 1.5, constraint=positive)
    cl = numpyro.param("cl", 2.7, constraint=positive)
    v = numpyro.param("v", 31.5, constraint=positive)
    omega = numpyro.param("omega", jnp.array([0.6, 0.3, 0.1]), constraint=positive)
    sigma = numpyro.param("sigma", 0.7, constraint=positive)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(jnp.zeros(3), omega).to_event(1))
        conc = hx.pk.one_compartment(
            pop, CL=cl * jnp.exp(eta[..., 1]), V=v * jnp.exp(eta[..., 2]), ka=ka * jnp.exp(eta[..., 0])
        )
        hx.observe("dv", dist.Normal(conc, sigma), pop)


pop = hx.read_nonmem(hx.datasets.load("theophylline"))
mechanism = hx.fit(theophylline, pop, hx.FOCE(), progress=False)
code = mechanism.embeddings()
print(code.to_pandas().round(2))
twice = hx.Population.from_subjects(
    [hx.Subject(i, hx.Regimen(300.0, count=3, interval=12), np.linspace(0, 48, 97)) for i in code["subject"].values]
)
curves = hx.predict(mechanism, twice, random_effects=code)

# %% [markdown]
# ## Pictures

# %%
figure, axes = plt.subplots(1, 3, figsize=(14, 4))
for color, (name, values) in zip(("C0", "C1"), codes.items(), strict=True):
    axes[0].scatter(hidden[80:], values[:, 0], s=14, color=color, label=name)
axes[0].set(xlabel="hidden number (never seen)", ylabel="code", title="Encoder: new subjects")
axes[0].legend()
axes[1].scatter(data[80:, 0], data[80:, 3], s=12, color="0.6", label="data")
order = np.argsort(hidden[80:])
for color, (name, values) in zip(("C0", "C1"), decoded.items(), strict=True):
    axes[1].plot(values.values[order, 0], values.values[order, 3], color=color, label=name)
axes[1].set(xlabel="value 1", ylabel="value 4", title="Decoder")
axes[1].legend()
axes[2].plot(curves["TIME"].values.T, curves["IPRED_dv"].values.T, lw=1)
axes[2].set(xlabel="time (h)", ylabel="concentration (mg/L)", title="Mechanism: 300 mg every 12 h")
figure.tight_layout()
figure.savefig("generative_models.png", dpi=90)
plt.close(figure)
everything = {"PCA": linear, "autoencoder": curved, "mechanism": mechanism}
print({name: fit.result.name for name, fit in everything.items()})
