# %% [markdown]
# # Words and images as covariates
#
# Information about a subject may be in a note or in a picture. A small model turns texts into vectors. The mean and the
# covariance of the random effects are computed from such a vector by a network, which first reduces the vector to a few
# numbers. This tutorial needs `pip install "hierax[embeddings]"`. Nothing is downloaded when it runs.

# %%
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import wordllama
from sklearn.datasets import load_digits

import hierax as hx

numpyro.enable_x64()
OUT = Path("tutorial_output")
OUT.mkdir(exist_ok=True)
positive = dist.constraints.positive
TIMES = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0])
rng = np.random.default_rng(0)


def program(effect=None):
    """Return the true program, whose clearance depends on a score; without ``effect``, the program to fit."""

    def model(pop):
        cl = numpyro.param("cl", 3.0, constraint=positive)
        v = numpyro.param("v", 30.0, constraint=positive)
        sigma = numpyro.param("sigma", 0.1, constraint=positive)
        omega = numpyro.param("omega", jnp.array([0.2, 0.2]), constraint=positive)
        shift = 0.0 if effect is None else effect * pop.data["score"]
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, omega).to_event(1))
            CL = numpyro.deterministic("CL", cl * jnp.exp(eta[..., 0] + shift))
            conc = hx.pk.one_compartment(pop, CL=CL, V=v * jnp.exp(eta[..., 1]), ka=1.2)
            hx.observe("cp", dist.LogNormal(jnp.log(jnp.where(conc > 0, conc, 1.0)), sigma), pop)

    return model


def study(score, seen, seed):
    """Return subjects whose clearance depends on a score, about which only ``seen`` gives information."""
    blank = hx.Population.from_subjects(
        hx.Subject(k, regimen=hx.Regimen(100.0), times=TIMES, observations={"cp": np.zeros(len(TIMES))})
        for k in range(len(score))
    ).with_data(score=score[:, None], seen=seen)
    drawn = hx.simulate(program(0.4), blank, seed=seed)
    return blank.with_dv(cp=np.where(blank.mask["cp"], drawn["cp"].values[0], np.nan))


def network(context):
    return hx.nn.conditional_normal("seen", 2, context, module=hx.nn.MLP(outputs=5, width=8, reduce=3))


def learn(pop, test, name):
    normal = hx.fit(program(), pop, hx.FOCE(), progress=False)
    learned = hx.augment(normal, ["seen"], distribution=network, penalties=(150.0, 30.0, 3.0), folds=3)
    sampling = hx.ImportanceSampling(1000, proposal="t")
    after, before = (hx.log_likelihood(fit, sampling, pop=test).subjects for fit in (learned.fit, normal))
    gain = after["log_likelihood"] - before["log_likelihood"]
    print(f"{name}, normal random effects: {normal.result.name}, {normal.why}")
    print(learned)
    print(f"{name}, held out: {gain.mean():.3f} nats a subject (SE {gain.std() / np.sqrt(len(gain)):.3f})")
    return normal, learned


# %% [markdown]
# ## Words
#
# Each note reveals a grade of illness, among other things that do not matter.

# %%
GRADES = (
    ["no complaints today", "feels entirely well", "has no symptoms at all"],
    ["reports mild tiredness", "has slight nausea at times", "notes minor swelling"],
    ["has moderate fatigue", "feels weak on most days", "is noticeably short of breath"],
    ["is severely fatigued", "is in serious distress", "has severe oedema and vomiting"],
    ["is critically ill", "is close to collapse", "needs intensive care urgently"],
)
ASIDES = ("Came with a relative.", "Asked about parking.", "Works in a bakery.", "Has two cats.", "Enjoys gardening.")
language = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)


def notes(n):
    score = rng.normal(size=n)
    grades = np.clip(np.round(1.2 * score + 2), 0, 4).astype(int)
    texts = [f"{rng.choice(ASIDES)} The patient {rng.choice(GRADES[g])}. {rng.choice(ASIDES)}" for g in grades]
    return score, np.asarray(language.embed(texts), float)


normal, learned = learn(study(*notes(200), seed=1), study(*notes(100), seed=2), "notes")
print(normal.summary())

# %% [markdown]
# ## Images
#
# Handwritten digits take the place of pictures that show a severity, as a radiologist would grade it.

# %%
digits = load_digits()
pixels, severity = digits.images.reshape(len(digits.images), -1) / 16.0, (digits.target - 4.5) / 2.87
train, test = np.split(rng.permutation(len(pixels))[:500], [400])
normal, learned = learn(
    study(severity[train], pixels[train], seed=3), study(severity[test], pixels[test], seed=4), "pictures"
)

# %% [markdown]
# The picture of a new subject predicts its clearance, before any concentration is measured:

# %%
drawn = hx.simulate(learned.fit, study(severity[test], pixels[test], seed=4), n=50)["CL"].values
figure = hx.plot.random_effects(learned.fit)
figure.savefig(OUT / "pictures.png", dpi=110)
print("clearance by the digit in the picture:")
for digit in range(10):
    print(digit, np.median(drawn[:, digits.target[test] == digit]).round(2))

# %% [markdown]
# ## Aligning two views of a subject
#
# Instead of a covariate, the note can be a second observation. In one program the latent numbers z drive both the
# pharmacokinetics and the vector of the note. Whichever of the two is known then informs the other. The vectors are
# reduced to their 24 main directions, and scaled to order one. (Beside z, further random effects of the
# pharmacokinetics alone would not be identified. The data tell how much the two views have in common, but not which
# share of each view that is.)

# %%
score, vectors = notes(200)
centre = vectors.mean(0)
axes = np.linalg.svd(vectors - centre, full_matrices=False)[2][:24]
spread = ((vectors - centre) @ axes.T).std(0)


def view(vectors):
    return ((vectors - centre) @ axes.T / spread)[:, None]


def aligned(pop):
    cl = numpyro.param("cl", 3.0, constraint=positive)
    v = numpyro.param("v", 30.0, constraint=positive)
    sigma = numpyro.param("sigma", 0.1, constraint=positive)
    omega = numpyro.param("omega", jnp.array([0.3, 0.2]), constraint=positive)
    loadings = numpyro.param("loadings", 0.1 * jnp.ones((24, 2)))
    noise = numpyro.param("noise", jnp.ones(24), constraint=positive)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        numpyro.sample("note", dist.Normal(z @ loadings.T, noise).to_event(1), obs=pop.data["view"])
        CL, V = cl * jnp.exp(omega[0] * z[..., 0]), v * jnp.exp(omega[1] * z[..., 1])
        conc = hx.pk.one_compartment(pop, CL=CL, V=V, ka=1.2)
        hx.observe("cp", dist.LogNormal(jnp.log(jnp.where(conc > 0, conc, 1.0)), sigma), pop)


shared = hx.fit(aligned, study(score, vectors, seed=5).with_data(view=view(vectors)), hx.FOCE(), progress=False)
print(shared.result.name, {name: np.round(shared.params[name], 3).tolist() for name in ("cl", "v", "omega", "sigma")})

# %% [markdown]
# For new subjects only the note is known. The note alone determines the estimate of z, and with it the clearance.

# %%
new_score, new_vectors = notes(100)
new = study(new_score, new_vectors, seed=6).with_data(view=view(new_vectors))
unseen = new.with_dv(cp=np.full(new.mask["cp"].shape, np.nan))
z = shared.embeddings(unseen).values[:, 0]
print(f"correlation of z, by the note alone, with the hidden score: {np.corrcoef(z, new_score)[0, 1]:.2f}")
