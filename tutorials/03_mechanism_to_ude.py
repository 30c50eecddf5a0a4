# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # From mechanism to learned dynamics: one subject
#
# A drug stimulates the production of a response. We follow one subject through many dosing regimens. Each regimen is a
# "subject" of the population, and all share the same parameters. The first model is the known mechanism. In the later
# models a network replaces the part of it that we pretend not to know.

# %%
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from flax import linen
from numpyro.contrib.module import flax_module

import hierax as hx

numpyro.enable_x64()
positive = dist.constraints.positive

# %% [markdown]
# ## The design
#
# There are twelve regimens of three doses each, with fifteen samples of the response.

# %%
rng = np.random.default_rng(1)
CL, VC, KA = 0.5, 2.0, 1.0


def regimen():
    first, second, third = np.cumsum(np.concatenate([[0.0], rng.uniform(6, 14, 2)]))
    doses = rng.uniform(5, 20, 3)
    return hx.Regimen(doses[0]) + hx.Regimen(doses[1], time=second) + hx.Regimen(doses[2], time=third)


runs = [hx.Subject(i + 1, regimen(), np.sort(rng.uniform(0, 48, 15))) for i in range(12)]
design = hx.Population.from_subjects(runs)

# %% [markdown]
# ## The mechanism
#
# `solve_ode` takes the vector field of one subject, in diffrax's signature: it gets numbers and returns numbers. Doses
# go into the state `depot` (CMT 1). Initial conditions may depend on parameters: here the response starts at its
# baseline. `hx.pk.hill` is the Hill curve, and has all its derivatives also where the concentration is 0.


# %%
def kinetics(y):
    absorbed = KA * y["depot"]
    return {"depot": -absorbed, "central": absorbed - CL / VC * y["central"]}


def mechanism(pop):
    kin = numpyro.param("kin", 0.7, constraint=positive)
    kout = numpyro.param("kout", 0.6, constraint=positive)
    smax = numpyro.param("smax", 1.0, constraint=positive)
    sc50 = numpyro.param("sc50", 1.0, constraint=positive)
    sigma = numpyro.param("sigma", 0.2, constraint=positive)

    def field(t, y, p):
        effect = hx.pk.hill(y["central"] / VC, smax, sc50, 2.0)
        return kinetics(y) | {"R": kin * (1 + effect) - kout * y["R"]}

    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        y = hx.solve_ode(pop, field, {"depot": 0.0, "central": 0.0, "R": kin / kout})
        hx.observe("dv", dist.Normal(y["R"], sigma), pop)


truth = {"kin": 1.0, "kout": 0.8, "smax": 2.0, "sc50": 1.5, "sigma": 0.1}
drawn = hx.simulate(mechanism, design, params=truth, seed=2)
pop = design.with_dv(dv=drawn["dv"].values[0])

known = hx.fit(mechanism, pop, hx.NaivePooled(), progress=False)
print(known.summary())

# %% [markdown]
# The summary looks like that of any other fit. The fit has also chosen the steps of the ODE solver, and their error is
# part of the result:

# %%
print(known.solver_error, known.timing)

# %% [markdown]
# ## The drug effect learned: a universal differential equation
#
# Now the effect h(c) is a network, and everything else stays as it is. `flax_module` registers the weights as
# population parameters. It is called before the ODE is solved, and the vector field refers to the network. The effect
# is 0 at c = 0 by construction. A prior on the weights acts as a mild penalty.


# %%
class Net(linen.Module):
    outputs: int = 1
    width: int = 5

    @linen.compact
    def __call__(self, x):
        return linen.Dense(self.outputs)(linen.tanh(linen.Dense(self.width)(x)))


def learned_effect(pop):
    net = flax_module("net", Net(), input_shape=(1,))
    kin = numpyro.param("kin", 0.7, constraint=positive)
    kout = numpyro.param("kout", 0.6, constraint=positive)
    sigma = numpyro.param("sigma", 0.2, constraint=positive)

    def effect(c):
        return net(c[None])[0] - net(jnp.zeros(1))[0]

    def field(t, y, p):
        return kinetics(y) | {"R": kin * (1 + effect(y["central"] / VC)) - kout * y["R"]}

    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        y = hx.solve_ode(pop, field, {"depot": 0.0, "central": 0.0, "R": kin / kout})
        hx.observe("dv", dist.Normal(y["R"], sigma), pop)


penalty = {"net$params": dist.Normal(0.0, 3.0)}
# The search ends at a standardised gradient below 0.05: the distance to the optimum is then 0.05 standard errors, and
# nothing is left to learn.
estimator = hx.NaivePooled(optimiser=hx.QuasiNewton(gtol=0.05, max_iter=1500))
ude = hx.fit(learned_effect, pop, estimator, priors=penalty, progress=False)
print(f"{ude.result.name}: {ude.why};", ude.params["sigma"], ude.params["kin"], ude.params["kout"])

# %% [markdown]
# ## Less known: the response's right-hand side learned
#
# Now only the kinetics are known. The rate at which the response changes is a network of concentration and response. In
# a neural ODE every derivative is learned. Between the two there are as many models as there are parts of a mechanism
# that may be known.


# %%
def learned_response(pop):
    net = flax_module("net", Net(1, 4), input_shape=(2,))
    base = numpyro.param("base", 1.0, constraint=positive)
    sigma = numpyro.param("sigma", 0.2, constraint=positive)

    def field(t, y, p):
        # The network is added to a simple return to the baseline, so that the ODE can be solved at the start of the
        # fit.
        return kinetics(y) | {"R": base - y["R"] + net(jnp.stack([y["central"] / 5, y["R"] / 2]))[0]}

    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        y = hx.solve_ode(pop, field, {"depot": 0.0, "central": 0.0, "R": base})
        hx.observe("dv", dist.Normal(y["R"], sigma), pop)


response = hx.fit(learned_response, pop, estimator, priors=penalty, progress=False)
print(f"{response.result.name}: {response.why};", response.params["sigma"])

# %% [markdown]
# ## What was learned, and what it is worth
#
# The learned effect is compared with the true one, over the concentrations that were seen. All models then predict an
# unseen schedule (equal doses, every four hours), and are compared with the noise-free truth.

# %%
unseen = hx.Population.from_grid(hx.Regimen(12.0, interval=4, count=8), np.linspace(0, 60, 121))
right = hx.predict(mechanism, unseen, params=truth)["PRED_dv"].values[0]
curves = {
    "mechanism": hx.predict(known, unseen)["PRED_dv"].values[0],
    "learned effect": hx.predict(ude, unseen)["PRED_dv"].values[0],
    "learned response": hx.predict(response, unseen)["PRED_dv"].values[0],
}
for name, curve in curves.items():
    print(f"{name:17s} RMSE on the unseen schedule {np.sqrt(np.mean((curve - right) ** 2)):.3f} (noise: 0.1)")

# %%
c = np.linspace(0, 8, 100)
net, weights = Net(), {"params": ude.params["net$params"]}
effect = np.array([float((net.apply(weights, jnp.array([x])) - net.apply(weights, jnp.zeros(1)))[0]) for x in c])
off = np.sqrt(np.mean((effect - 2.0 * c**2 / (1.5**2 + c**2)) ** 2))
print(f"the learned effect is off by {off:.3f} (RMSE over concentrations up to 8; the true effect reaches 2)")
figure, axes = plt.subplots(1, 3, figsize=(14, 4))
axes[0].plot(c, hx.pk.hill(c, 2.0, 1.5, 2.0), color="black", label="truth")
axes[0].plot(c, effect, color="C1", label="learned")
axes[0].set(xlabel="concentration", ylabel="effect h(c)", title="The drug effect")
axes[0].legend()
rows = np.asarray(pop.mask["dv"])[0]
axes[1].scatter(np.asarray(pop.times)[0][rows], np.asarray(pop.dv["dv"])[0][rows], color="black", s=15, label="data")
grid = pop.at_times(np.linspace(0, 48, 200))
fits = {"mechanism": known, "learned effect": ude, "learned response": response}
for color, (name, fit) in zip(("C0", "C1", "C2"), fits.items(), strict=True):
    curve = hx.predict(fit, grid)["PRED_dv"].values[0]
    axes[1].plot(np.asarray(grid.times)[0], curve, color=color, label=name)
axes[1].set(xlabel="time", ylabel="response", title="A regimen that was seen")
axes[1].legend(loc="upper right", fontsize=8)
axes[2].plot(np.asarray(unseen.times)[0], right, color="black", label="truth")
for color, (name, curve) in zip(("C0", "C1", "C2"), curves.items(), strict=True):
    axes[2].plot(np.asarray(unseen.times)[0], curve, color=color, label=name)
axes[2].set(xlabel="time", ylabel="response", title="A schedule that was not")
figure.tight_layout()
figure.savefig("mechanism_to_ude.png", dpi=90)
plt.close(figure)
