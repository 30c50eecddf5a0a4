# %% [markdown]
# # The distribution of random effects, learned
#
# Random effects are usually taken as normal because that is convenient. Here they are not normal: four in ten subjects
# eliminate a drug fast and have a small volume of distribution, and in the others it is the other way round. In the
# second example clearance depends on two of four covariates that were measured. `hx.augment` learns both from a fit
# with normal random effects. It does so in two stages, and puts what it has learned into the same program.

# %%
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import hierax as hx

numpyro.enable_x64()
OUT = Path("tutorial_output")
OUT.mkdir(exist_ok=True)
positive = dist.constraints.positive
TIMES = np.array([0.25, 0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 18.0, 24.0])


def study(**covariates):
    """Return subjects with one oral dose, ten samples, and these covariates."""
    n = len(next(iter(covariates.values())))
    return hx.Population.from_subjects(
        hx.Subject(
            k + 1,
            regimen=hx.Regimen(100.0),
            times=TIMES,
            observations={"cp": np.zeros(len(TIMES))},
            covariates={name: values[k] for name, values in covariates.items()},
        )
        for k in range(n)
    )


def respond(pop, eta, cl=3.0, v=30.0, ka=1.2, sigma=0.05):
    CL = numpyro.deterministic("CL", cl * jnp.exp(eta[..., 0]))
    V = numpyro.deterministic("V", v * jnp.exp(eta[..., 1]))
    conc = hx.pk.one_compartment(pop, CL=CL, V=V, ka=ka)
    # At the time of the dose the concentration is 0, and the logarithm has no derivative at 0.
    hx.observe("cp", dist.LogNormal(jnp.log(jnp.where(conc > 0, conc, 1.0)), sigma), pop)


# %% [markdown]
# ## Responders and non-responders
#
# The true distribution is a mixture of two normal distributions. The program that is fitted does not contain this
# knowledge.


# %%
def two_kinds(pop):
    centres = jnp.array([[-0.35, 0.2], [0.5, -0.25]])
    kinds = dist.MultivariateNormal(centres, 0.15**2 * jnp.eye(2))
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        respond(pop, numpyro.sample("eta", dist.MixtureSameFamily(dist.Categorical(jnp.array([0.6, 0.4])), kinds)))


def gaussian(pop):
    cl = numpyro.param("cl", 2.5, constraint=positive)
    v = numpyro.param("v", 25.0, constraint=positive)
    ka = numpyro.param("ka", 1.0, constraint=positive)
    sigma = numpyro.param("sigma", 0.1, constraint=positive)
    tril = numpyro.param("tril", 0.3 * jnp.eye(2), constraint=dist.constraints.lower_cholesky)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.MultivariateNormal(jnp.zeros(2), scale_tril=tril))
        respond(pop, eta, cl, v, ka, sigma)


rng = np.random.default_rng(0)
blank = study(x=rng.normal(size=250))
drawn = hx.simulate(two_kinds, blank, seed=1)
pop = blank.with_dv(cp=np.where(blank.mask["cp"], drawn["cp"].values[0], np.nan))
normal = hx.fit(gaussian, pop, hx.FOCE(), progress=False)
print(normal.summary())

# %% [markdown]
# The fit with normal random effects gives draws from each subject's conditional distribution. These draws represent the
# subject's data. Let p₀ be the normal distribution, and p another distribution of the random effects. Under p the
# marginal likelihood changes by a factor, the mean of p/p₀ over the draws. The flow is trained to maximise this. The
# strength of its penalty is chosen by subjects that are held out. If the last strength of the list is chosen, a warning
# says so. Here several strengths have nearly the same held-out gain, so that a longer list would change nothing.

# %%
learned = hx.augment(normal, penalties=(100.0, 20.0, 4.0, 1.0), folds=3)
print(learned)
hx.plot.random_effects(learned.fit).savefig(OUT / "two_kinds.png", dpi=110)
# Behind a flow a posterior may be skewed. The samples are therefore drawn around its mean, not around its mode.
sampling = hx.ImportanceSampling(2000, proposal="t", centre="mean")
gain = hx.log_likelihood(learned.fit, sampling).log_likelihood - hx.log_likelihood(normal, sampling).log_likelihood
print(f"log likelihood by importance sampling: {gain:.1f} above that of normal random effects")

# %% [markdown]
# ## Covariates
#
# Clearance saturates in `x1`, and depends on the product of `x1` and `x2`. The two other covariates are noise. A
# conditional normal distribution replaces the plain one. Its mean and covariance are computed by one network. A
# covariate is left out if permuting its values between subjects does not lower the likelihood of held-out subjects.


# %%
def by_covariates(pop):
    x1, x2 = pop.covariates["x1"], pop.covariates["x2"]
    mean = jnp.stack([0.4 * jnp.tanh(1.5 * x1) + 0.2 * x1 * x2, 0.0 * x1], axis=-1)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        respond(pop, numpyro.sample("eta", dist.MultivariateNormal(mean, 0.2**2 * jnp.eye(2))))


def network(context):
    return hx.nn.conditional_normal("by_covariates", 2, context, module=hx.nn.MLP(outputs=5, width=16, depth=2))


blank = study(**{name: rng.normal(size=200) for name in ("x1", "x2", "x3", "x4")})
drawn = hx.simulate(by_covariates, blank, seed=2)
pop = blank.with_dv(cp=np.where(blank.mask["cp"], drawn["cp"].values[0], np.nan))
normal = hx.fit(gaussian, pop, hx.FOCE(), progress=False)
print(f"normal random effects: {normal.result.name}, {normal.why}; OFV {normal.ofv:.2f}")
learned = hx.augment(normal, ["x1", "x2", "x3", "x4"], distribution=network, penalties=(3.0, 1.0, 0.3), folds=3)
print(learned)
print(learned.importance)
print("kept:", learned.context.names)
hx.plot.importance(learned.importance).savefig(OUT / "importance.png", dpi=110)
hx.plot.covariates(learned.fit, ["x1", "x2"]).savefig(OUT / "covariates.png", dpi=110)

# %% [markdown]
# `learned.model` is a program like any other. It can be refitted by any estimator, from `init=learned.params` and with
# `priors=learned.priors`. With `fixed=learned.redundant`, the parameters that the learned distribution has replaced are
# held, and all others are estimated. With `fixed=learned.others`, all parameters of the first fit are held, and the
# learned distribution alone is refitted.
