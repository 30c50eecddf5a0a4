# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # From mechanism to DeepNLME
#
# The tutorial before last learned the drug effect in one subject. Here each subject has an effect of its own. The
# network takes the concentration *and random effects* as inputs. What the random effects mean is learned from the
# population.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist

import hierax as hx

numpyro.enable_x64()
positive = dist.constraints.positive

# %% [markdown]
# ## Data from a known truth
#
# A drug stimulates the production of a response along a Hill curve. The height and the steepness of the curve differ
# between subjects. So do the rates of absorption and of the response's turnover. Concentration and response are
# observed.


# %%
def turnover(pop, p, effect):
    def field(t, y, args):
        c = y["central"] / args["Vc"]
        absorbed = args["Ka"] * y["depot"]
        return {
            "depot": -absorbed,
            "central": absorbed - args["CL"] * c,
            "R": args["Kin"] * (1 + effect(c, args)) - args["Kout"] * y["R"],
        }

    start = {"depot": 0.0, "central": 0.0, "R": p["Kin"] / p["Kout"]}
    y = hx.solve_ode(pop, field, start, p, solver=hx.Grid(1e-4))
    hx.observe("c", dist.Normal(y["central"] / p["Vc"], numpyro.param("sigma_c", 0.2, constraint=positive)), pop)
    hx.observe("R", dist.Normal(y["R"], numpyro.param("sigma_R", 0.2, constraint=positive)), pop)


def constants(**starts):
    return {name: numpyro.param(name, value, constraint=positive) for name, value in starts.items()}


STARTS = dict(Ka=0.7, CL=0.7, Vc=1.5, Kin=1.5, Kout=1.0)


def hill(pop):
    p = constants(**STARTS, Smax=1.5, SC50=1.0, n=1.5)
    omega = numpyro.param("omega", 0.3 * jnp.ones(4), constraint=positive)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(jnp.zeros(4), omega).to_event(1))
        p |= {name: p[name] * jnp.exp(eta[..., k]) for k, name in enumerate(("Ka", "Kout", "Smax", "n"))}

        def effect(c, args):
            return hx.pk.hill(c, args["Smax"], args["SC50"], args["n"])

        turnover(pop, p, effect)


rng = np.random.default_rng(0)


def subject(number):
    times, doses = np.concatenate([[0.0], np.cumsum(rng.uniform(6, 14, 2))]), rng.uniform(5, 20, 3)
    regimen = sum((hx.Regimen(d, time=t) for t, d in zip(times[1:], doses[1:], strict=True)), hx.Regimen(doses[0]))
    blank = {"c": np.zeros(15), "R": np.zeros(15)}
    return hx.Subject(number, regimen, np.sort(rng.uniform(0, 48, 15)), observations=blank)


TRUTH = dict(Ka=1.0, CL=0.5, Vc=2.0, Kin=1.0, Kout=0.8, Smax=2.0, SC50=1.5, n=2.0)
TRUTH |= dict(omega=0.3 * np.ones(4), sigma_c=0.05, sigma_R=0.1)
design = hx.Population.from_subjects([subject(k + 1) for k in range(60)])
drawn = hx.simulate(hill, design, params=TRUTH, seed=1)
everyone = design.with_dv(**{name: np.where(design.mask[name], drawn[name].values[0], np.nan) for name in ("c", "R")})
train, test = everyone[:30], everyone[30:]

# %% [markdown]
# ## The model with a network
#
# What is known of a drug's effect is built into the network by its head, `hx.nn.Saturating`: the effect is zero without
# drug, positive, and levels off. Two random effects `z` are inputs beside the concentration. `hx.nn.network` is
# NumPyro's `flax_module`, and also remembers the module. It stands above the plate, and the vector field refers to it.
# An alternative is to give each subject its own weights (`hx.nn.individualise`). Where we compared the two, inputs were
# faster and predicted new subjects better.

# %%
module = hx.nn.Saturating(hx.nn.MLP(width=6))


def deep(pop):
    net = hx.nn.network("effect", module, input_shape=(3,))
    p = constants(**STARTS)
    omega = numpyro.param("omega", 0.3 * jnp.ones(2), constraint=positive)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(jnp.zeros(2), omega).to_event(1))
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        p |= {name: p[name] * jnp.exp(eta[..., k]) for k, name in enumerate(("Ka", "Kout"))}
        turnover(pop, p | {"z": z}, lambda c, args: net(jnp.concatenate([c[None], args["z"]]))[0])


# %% [markdown]
# ## Fitting it: VI first, then FOCE
#
# With untrained weights FOCE finds no modes to start from. VI therefore comes first, and brings the network near an
# optimum. It is run from several initial weights, because a random effect may stay unused in some runs. The run with
# the highest bound is continued by FOCE. FOCE achieves in a hundred evaluations what would take VI's optimiser tens of
# thousands of steps. Its search is limited to a hundred evaluations, and ends at that limit. `fit` warns of this. The
# line printed below says `max_iterations`, and how large the gradient still is. So the estimate is not an optimum. How
# good it is has to be judged by subjects that it has not seen.

# %%
# A mild penalty keeps the network from overfitting thirty subjects. The objective is reported without the penalty.
penalty = {"effect$params": hx.nn.l2(0.02)}
starts = []
for seed in range(2):
    weights = module.init(jax.random.key(seed), jnp.ones(3))["params"]
    vi = hx.VI(steps=2000, automatic=False, learning_rate=0.03)
    starts.append(hx.fit(deep, train, vi, init={"effect$params": weights}, priors=penalty, seed=seed, progress=False))
    print(f"start {seed}: {starts[-1].result.name}, bound {starts[-1].variational.elbo[0]:.1f}")
best = max(starts, key=lambda fit: fit.variational.elbo[0])
search = hx.QuasiNewton(gtol=0.1, max_iter=100)
learned = hx.fit(deep, train, hx.FOCE(optimiser=search), init=best, priors=penalty, progress=False)
known = hx.fit(hill, train, hx.FOCE(), progress=False)
fits = {"network": learned, "Hill (the true structure)": known}
for name, fit in fits.items():
    slope = fit.history["gradient"].iloc[-1]
    print(f"{name:26s} {fit.result.name}: {fit.why}; OFV {fit.ofv:.1f}, standardised gradient {slope:.1e}")

# %% [markdown]
# ## Is it as good as the truth?
#
# The models are judged by the marginal likelihood of subjects that no fit has seen. It is computed by importance
# sampling. Behind a network the distribution of a subject's random effects is far from a Gaussian around its mode. With
# such a Gaussian as proposal, most of these subjects have a Pareto k above 0.7, and their values cannot be trusted. The
# proposal is therefore a Student-t distribution around the conditional mean, which Markov chains have found. Subjects
# whose k is above 0.7 even so are counted, and left out of the comparison.

# %%
judge = hx.ImportanceSampling(500, proposal="t", centre="mean")
judged = {name: hx.log_likelihood(fit, judge, pop=test).subjects for name, fit in fits.items()}
trusted = np.all([subjects["pareto_k"] <= 0.7 for subjects in judged.values()], axis=0)
for name, subjects in judged.items():
    k = subjects["pareto_k"]
    print(
        f"{name:26s} held-out log likelihood {subjects['log_likelihood'].sum():8.1f}; largest Pareto k {k.max():.2f}, "
        f"above 0.7 in {np.sum(k > 0.7)} of {len(k)} subjects"
    )
network, truth = (subjects["log_likelihood"][trusted] for subjects in judged.values())
gap = (network - truth) / 15
error = gap.std() / np.sqrt(len(gap))
print(f"network - Hill over {len(gap)} subjects: {gap.mean():.4f} nats an observation of R, SE {error:.4f}")
far = abs(gap.mean()) / error
verdict = "cannot be told from" if far < 2 else f"is {far:.1f} standard errors {'below' if gap.mean() < 0 else 'above'}"
print(f"On subjects that it has not seen the network {verdict} the true structure.")

# %% [markdown]
# The last line is the answer. When this was written, the network ended 0.015 nats per observation below the true
# structure, with a standard error of 0.012. Thirty new subjects cannot tell the two apart. But they do not show that
# the network is as good, either. Its search ended at the limit of its iterations, and one of the new subjects has
# importance weights that cannot be trusted. With other data of the same size it ended 0.04 nats below, about three
# standard errors. The curves below show what a network is good for where no structure is known.

# %% [markdown]
# ## What was learned
#
# Three things are shown. The first is the family of effect curves: the network at random effects drawn from their
# prior, against the true family. The second are the curves of new subjects at their embeddings. The third are
# predictions for the new subjects.

# %%
c = np.linspace(0, 10, 80)


def network_curves(z):
    points = np.concatenate([np.tile(c[None, :, None], (len(z), 1, 1)), np.tile(z[:, None], (1, len(c), 1))], axis=-1)
    return np.asarray(module.apply({"params": learned.params["effect$params"]}, points))[..., 0]


def hill_curves(eta):
    return np.asarray(hx.pk.hill(c, 2.0 * np.exp(eta[:, :1]), 1.5, 2.0 * np.exp(eta[:, 1:])))


levels = (0.05, 0.25, 0.5, 0.75, 0.95)
family = np.quantile(network_curves(rng.normal(size=(2000, 2))), levels, axis=0)
true = np.quantile(hill_curves(0.3 * rng.normal(size=(2000, 2))), levels, axis=0)
codes = learned.embeddings(test).values[:, 2:]
own, right = network_curves(codes), hill_curves(drawn["eta"].values[0][30:, 2:])
print(f"curves of new subjects: RMSE {np.sqrt(np.mean((own - right) ** 2)):.3f}, largest true effect {right.max():.1f}")
widths = [curves[-1, -1] - curves[0, -1] for curves in (family, true)]
print(f"at the highest concentration 90 % of curves span {widths[0]:.2f} by the network, {widths[1]:.2f} in truth")

figure, axes = plt.subplots(1, 3, figsize=(15, 4))
axes[0].plot(c, true.T, color="black", lw=1)
axes[0].plot(c, family.T, color="C1", lw=1.5, ls="--")
axes[0].plot([], [], color="black", label="truth")
axes[0].plot([], [], color="C1", ls="--", label="network")
axes[0].set(xlabel="concentration", ylabel="effect", title="The family: 5, 25, 50, 75, 95 % curves")
axes[0].legend()
for k in range(5):
    axes[1].plot(c, right[k], color=f"C{k}", lw=1)
    axes[1].plot(c, own[k], color=f"C{k}", ls="--", lw=1.5)
axes[1].set(xlabel="concentration", ylabel="effect", title="New subjects (dashed: network)")
simulated = hx.simulate(learned, test, n=200, seed=3)["R"].values
low, high = np.quantile(simulated, [0.05, 0.95], axis=0)
rows = np.asarray(test.subject_mask)
seen, times, data = (np.asarray(one)[rows] for one in (test.mask["R"], test.times, test.dv["R"]))
inside = np.mean((data[seen] >= low[seen]) & (data[seen] <= high[seen]))
axes[2].vlines(times[seen], low[seen], high[seen], color="0.85", lw=1)
within = (data >= low) & (data <= high)
for choice, color in ((seen & within, "black"), (seen & ~within, "C3")):
    axes[2].scatter(times[choice], data[choice], s=6, color=color)
axes[2].set(xlabel="time", ylabel="response", title=f"New subjects: {inside:.0%} inside the 5-95 % band")
figure.tight_layout()
figure.savefig("deep_nlme.png", dpi=90)
plt.close(figure)
print(f"{inside:.1%} of {seen.sum()} new responses are inside their 5-95 % band; 90 % would be if the model were true")

# %% [markdown]
# To sum up: the error of a new subject's curve is small compared with the height of the effect. But the family of
# curves lies too high and is too wide. Its span was 2.8 instead of 2.0 when this was written, because thirty subjects
# say little of the distribution of `z`. And the prediction bands are too narrow for new subjects (83 % of the data
# inside instead of 90 %).
