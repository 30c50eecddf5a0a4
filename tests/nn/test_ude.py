"""One subject's dynamics learned from many regimens: a network for the drug's effect against networks for all."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from indirect import HORIZON, POSITIVE, TRUTH, hill, regimen, states

import hierax as hx

# A network for one function of one number is small; one for three derivatives is not.
WIDTHS, STRENGTHS = {"effect": (3, 4, 6, 8, 12), "field": (6, 8, 12, 16, 24)}, (1e-4, 1e-2, 1e-1)
SIGMA = {"c": 0.05, "R": 0.1}
pytestmark = [
    pytest.mark.study,
    pytest.mark.filterwarnings(r"ignore:The fit did not converge \((max_iterations|no_progress)\)"),
    # A neural ODE on its way may be anything.
    pytest.mark.filterwarnings("ignore:ODE 'ode' looks stiff"),
]


def truth(pop):
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        y = states(pop, TRUTH)
        hx.observe("c", dist.Normal(y["central"] / TRUTH["Vc"], SIGMA["c"]), pop)
        hx.observe("R", dist.Normal(y["R"], SIGMA["R"]), pop)


def ude(module):
    """Known kinetics and turnover with unknown constants; the drug's effect is a network of the concentration."""

    def model(pop):
        net = hx.nn.network("effect", module, input_shape=(1,))
        starts = {"Ka": 0.7, "CL": 0.7, "Vc": 1.5, "Kin": 1.5, "Kout": 1.0}
        p = {name: numpyro.param(name, value, constraint=POSITIVE) for name, value in starts.items()}
        with numpyro.plate("subject", pop.n_subjects, dim=-2):

            def field(t, y, args):
                c = y["central"] / p["Vc"]
                absorbed = p["Ka"] * y["depot"]
                response = p["Kin"] * (1 + args["net"](c[None])[0]) - p["Kout"] * y["R"]
                return {"depot": -absorbed, "central": absorbed - p["CL"] * c, "R": response}

            start = {"depot": 0.0, "central": 0.0, "R": p["Kin"] / p["Kout"]}
            y = hx.solve_ode(pop, field, start, shared={"net": net}, solver=hx.Grid(1e-5))
            noise(pop, y["central"] / p["Vc"], y["R"])

    return model


def neural_ode(width):
    """Nothing known but where the dose goes and what is seen: three states, one network for all derivatives."""

    def model(pop):
        net = hx.nn.network("field", hx.nn.MLP(outputs=3, width=width, activation="tanh"), input_shape=(3,))
        first = numpyro.param("first", 1.0, constraint=POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):

            def field(t, y, args):
                slope = args["net"](jnp.stack([y["depot"] / 10, y["c"] / 5, y["R"] / 2]))
                # A slow return to where it was keeps a network without training from running away.
                return {
                    "depot": 10 * slope[0] - 0.5 * y["depot"],
                    "c": 5 * slope[1] - 0.5 * y["c"],
                    "R": 2 * slope[2] + 0.5 * (first - y["R"]),
                }

            start = {"depot": 0.0, "c": 0.0, "R": first}
            y = hx.solve_ode(pop, field, start, shared={"net": net}, solver=hx.Grid(1e-5))
            noise(pop, y["c"], y["R"])

    return model


def noise(pop, c, response):
    for name, mean, start in (("c", c, 0.3), ("R", response, 0.3)):
        sigma = numpyro.param(f"sigma_{name}", start, constraint=POSITIVE)
        hx.observe(name, dist.Normal(mean, sigma), pop)


def population(regimens, times, seed=None):
    blank = {"c": np.zeros(len(times[0])), "R": np.zeros(len(times[0]))}
    subjects = [hx.Subject(k + 1, one, times[k], observations=blank) for k, one in enumerate(regimens)]
    pop = hx.Population.from_subjects(subjects)
    if seed is None:
        return pop
    drawn = hx.simulate(truth, pop, seed=seed)
    return pop.with_dv(**{name: np.where(pop.mask[name], drawn[name].values[0], np.nan) for name in SIGMA})


@pytest.fixture(scope="module")
def runs():
    """36 regimens with data, a quarter of them for validation, and schedules that none of them is like."""
    rng = np.random.default_rng(11)
    regimens = [regimen(rng) for _ in range(36)]
    pop = population(regimens, [np.sort(rng.uniform(0, HORIZON, 15)) for _ in regimens], seed=12)
    often = [hx.Regimen(amount, time=0.0, count=10, interval=3.0) for amount in (5.0, 10.0, 15.0, 20.0)]
    unseen = population(often, [np.linspace(0.5, HORIZON, 60)] * len(often))
    return pop[:27], pop[27:], unseen, pop


def train(model, pop, strength, name, init=None):
    search = hx.QuasiNewton(gtol=0.1, max_iter=1500)
    return hx.fit(
        model, pop, hx.NaivePooled(optimiser=search), priors={f"{name}$params": hx.nn.l2(strength)}, init=init,
        progress=False,
    )  # fmt: skip


def best(make, name, runs):
    """Fit all regimens with the width and penalty that make those of validation most likely by a fit of the others."""
    first, held_out, _, everything = runs
    kept = None
    for width in WIDTHS[name]:
        model = make(width)
        for strength in STRENGTHS:
            fit = train(model, first, strength, name)
            score = hx.log_likelihood(fit, hx.NaivePooled(), pop=held_out).log_likelihood
            sigmas = [round(float(fit.params[f"sigma_{one}"]), 4) for one in SIGMA]
            print(name, width, strength, round(score, 1), sigmas, len(fit.history), fit.result.name, flush=True)
            if kept is None or score > kept[0]:
                kept = score, fit, (width, strength)
    _, fit, (width, strength) = kept
    return train(make(width), everything, strength, name, init=fit), (width, strength)


def test_mechanism_carries_to_schedules_that_were_not_seen(runs):
    errors = {}
    true = hx.predict(truth, runs[2], params={})["PRED_R"]
    makers = {"effect": lambda width: ude(hx.nn.Saturating(hx.nn.MLP(width=width))), "field": neural_ode}
    for name, make in makers.items():
        fit, choice = best(make, name, runs)
        found = hx.predict(fit, runs[2])["PRED_R"]
        errors[name] = float(np.sqrt(np.nanmean((found - true) ** 2))) / SIGMA["R"]
        print(name, choice, "RMSE in sigmas on unseen schedules", errors[name], flush=True)
        assert float(fit.params["sigma_R"]) < 1.1 * SIGMA["R"]
        assert float(fit.params["sigma_c"]) < 1.1 * SIGMA["c"]
    print("ratio", errors["field"] / errors["effect"])
    assert errors["effect"] <= 0.5
    # Found: 0.22 and 0.50, a ratio of 2.2.
    assert errors["field"] >= 1.5 * errors["effect"]


def test_the_learned_effect_is_the_true_one(runs):
    """Five starts; over the seen concentrations, at twice their range, and under the band."""
    pop = runs[3]
    both = float(np.nanmax(pop.dv["c"]))
    c = np.linspace(0.05 * both, both, 60)
    true = np.asarray(hill(c, TRUTH["Smax"], TRUTH["SC50"], TRUTH["n"]))
    module = hx.nn.Saturating(hx.nn.MLP(width=4))
    model, found = ude(module), []
    for seed in range(5):
        weights = module.init(jax.random.key(seed), jnp.ones(1))["params"]
        fit = train(model, pop, 1e-2, "effect", init={"effect$params": weights})
        band = hx.predict_function(fit, "effect", c[:, None])
        beyond = hx.predict_function(fit, "effect", np.array([[2 * both]]), draws=2)["estimate"].values[0, 0]
        limit = float(hill(2 * both, TRUTH["Smax"], TRUTH["SC50"], TRUTH["n"]))
        curve = band["estimate"].values[:, 0]
        covered = np.mean((band["lower"].values[:, 0] <= true) & (true <= band["upper"].values[:, 0]))
        off, far = np.median(np.abs(curve / true - 1)), abs(beyond / limit - 1)
        print(seed, "median error", off, "at twice the range", far, "covered", covered, fit.ofv, flush=True)
        found.append((off, far, covered, curve))
    print("spread between starts", np.std([one[3] for one in found], axis=0).max())
    assert np.median([one[0] for one in found]) <= 0.05
    assert np.median([one[1] for one in found]) <= 0.15
    assert np.median([one[2] for one in found]) >= 0.8
