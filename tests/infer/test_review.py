"""Programs that once went wrong."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import zoo

import hierax as hx


@pytest.fixture(scope="module")
def pop():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"ID": np.repeat(range(8), 5), "TIME": np.tile(np.arange(5.0), 8), "WT": np.repeat(rng.normal(0, 1, 8), 5)}
    )
    level = np.repeat(rng.normal(0, 0.5, 8), 5)
    frame["DV"] = 5 + level - 0.5 * frame["TIME"] + rng.normal(0, 0.4, 40)
    return hx.read_nonmem(frame, covariates=["WT"])


def line(pop, eta):
    return 5 + eta - 0.5 * pop.times


def observed(pop):
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0, 0.5))
        f = line(pop, eta)
        hx.observe("dv", dist.Normal(f, 0.1 * f), pop)


def as_events(pop):
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0, 0.5))
        f = line(pop, eta)[:, None, :]
        numpyro.sample("y", dist.Normal(f, 0.1 * f).to_event(1), obs=pop.dv["dv"][:, None, :])


@pytest.mark.parametrize("estimator", [hx.FOCE(interaction=False), hx.FOCE(), hx.FO()], ids=lambda e: e.label)
def test_records_as_event_axes_give_the_same(pop, estimator):
    one, other = (hx.evaluate(model, pop, {}, estimator) for model in (observed, as_events))
    np.testing.assert_allclose(one.value, other.value, rtol=1e-10)
    assert one.n_gaussian == other.n_gaussian == 40


def test_a_transform_free_of_the_effects_is_seen_through(pop):
    def build(log_normal):
        def model(pop):
            with numpyro.plate("subject", pop.n_subjects, dim=-2):
                eta = numpyro.sample("eta", dist.Normal(0, 0.5))
                loc = jnp.log(5.0) + 0.2 * eta - 0.1 * pop.times
                transform = dist.transforms.ExpTransform()
                other = dist.TransformedDistribution(dist.Normal(loc, 0.1), transform)
                hx.observe("dv", dist.LogNormal(loc, 0.1) if log_normal else other, pop)

        return model

    for estimator in (hx.FOCE(), hx.FO(), hx.FOCE(interaction=False)):
        one, other = (hx.evaluate(build(kind), pop, {}, estimator) for kind in (True, False))
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-9)
        assert one.n_gaussian == other.n_gaussian == 40


def test_a_transform_that_follows_an_effect_is_refused(pop):
    def model(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0, 0.5))
            shift = dist.transforms.AffineTransform(eta + 0 * pop.times, 1.0)
            hx.observe("dv", dist.TransformedDistribution(dist.Normal(0 * pop.times, 1.0), shift), pop)

    with pytest.raises(
        hx.EstimatorError, match=r"parameter 'transform' of the data site 'dv'.*depends on random effects"
    ):
        hx.evaluate(model, pop, {}, hx.FOCE())


def test_a_parameter_without_gradient_at_the_start_alone_is_not_held(pop):
    def model(pop):
        a = numpyro.param("a", 0.0)
        b = numpyro.param("b", 0.0)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0, 0.5))
            # At b = 0 the power makes no difference. Its best value is near 1: the data fall along a line.
            f = 5 + eta + b * ((1 + pop.times) ** jnp.exp(a) - 1)
            hx.observe("dv", dist.Normal(f, 0.5), pop)

    fit = hx.fit(model, pop, hx.FOCE(), progress=False)
    other = hx.fit(model, pop, hx.FOCE(), progress=False, init={"b": -0.3})
    assert fit.held == []
    assert fit.ofv == pytest.approx(other.ofv, abs=1e-4)


@pytest.mark.parametrize("kind", ["data", "effects"])
def test_ties_behind_a_zero_slope_are_seen(pop, kind):
    def model(pop):
        b = numpyro.param("b", 0.0)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0, 0.5))
            weight = pop.covariates["WT"]
            tie = b * (weight - weight.mean()) if kind == "data" else b * eta.mean()
            hx.observe("dv", dist.Normal(line(pop, eta) + tie, 0.5), pop)

    with pytest.raises(hx.ModelError, match="of one subject"):
        hx.program(model, pop)


@pytest.mark.parametrize(
    "estimator", [hx.FOCE(), hx.Laplace(), hx.AGQ(3), hx.FO(), hx.NaivePooled()], ids=lambda e: e.label
)
def test_no_random_effects(pop, estimator):
    def model(pop):
        mu = numpyro.param("mu", 4.0)
        sigma = numpyro.param("sigma", 1.0, constraint=zoo.POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            hx.observe("dv", dist.Normal(mu + 0 * pop.times, sigma), pop)

    fit = hx.fit(model, pop, estimator, progress=False)
    data = pop.dv["dv"]
    assert float(fit.params["mu"]) == pytest.approx(data.mean(), abs=1e-4)
    assert float(fit.params["sigma"]) == pytest.approx(data.std(), abs=1e-4)
    assert "Converged" in str(fit.summary())
    assert len(fit.table()) == 40


def test_a_trial_step_whose_scores_overflow_is_stepped_back_from(pop):
    def model(pop):
        a = numpyro.param("a", 1.0)
        b = numpyro.param("b", 0.3)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0, 0.5))
            f = 5 + b * (jnp.exp(a * pop.times / 3) - 1) + eta
            hx.observe("dv", dist.Normal(f, 0.5), pop)

    fit = hx.fit(model, pop, hx.FOCE(), progress=False)
    assert fit.result is hx.Result.converged


def test_one_subject_converges_by_its_gradient(pop):
    def model(pop):
        mu = numpyro.param("mu", 4.0)
        slope = numpyro.param("slope", 0.0)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0, 0.5))
            hx.observe("dv", dist.Normal(mu + eta + slope * pop.times, 0.5), pop)

    fit = hx.fit(model, pop[3], hx.FOCE(), progress=False)
    assert fit.result is hx.Result.converged
    assert np.abs(fit.gradient).max() < 1e-3
    assert len(fit.history) < 40


def test_bounds_computed_in_the_program_and_vector_bounds(pop):
    def model(pop):
        mu = numpyro.sample("mu", dist.Uniform(0.0, jnp.exp(2.5)))
        pair = numpyro.param("pair", jnp.array([0.1, -0.4]), constraint=dist.constraints.interval(
            jnp.array([0.0, -1.0]), jnp.array([1.0, 5.0])))  # fmt: skip
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 0.5))
            hx.observe("dv", dist.Normal(mu + eta + pair[1] * pop.times, 0.3 + pair[0]), pop)

    fit = hx.fit(model, pop, hx.FOCE(), progress=False)
    assert fit.result is hx.Result.converged
    table = fit.summary()
    assert (table["2.5 %"] < table["estimate"]).all()
    assert (table["97.5 %"] > table["estimate"]).all()


def test_a_bound_that_moves_is_refused(pop):
    def model(pop):
        low = numpyro.param("low", 1.0)
        mu = numpyro.sample("mu", dist.Uniform(low, 10.0))
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 0.5))
            hx.observe("dv", dist.Normal(mu + eta + 0 * pop.times, 0.3), pop)

    with pytest.raises(hx.ModelError, match=r"The support of 'mu' has a bound that depends on another parameter"):
        hx.program(model, pop)


def test_reverse_mode_falls_back_on_forward_passes_where_masked_predictions_spoil_it(theo_pop, monkeypatch):
    """The log of the concentration at the dose record is -inf, with derivatives that are NaN in reverse mode."""
    from hierax.infer.marginal import objective
    from hierax.infer.marginal.session import Session
    from hierax.program.parameters import layout

    frame = hx.datasets.load("theophylline")
    pop = hx.read_nonmem(frame[(frame["EVID"] == 1) | (frame["TIME"] > 0)])[:3]

    def model(pop):
        cl = numpyro.param("cl", 3.0, constraint=zoo.POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 0.3))
            late = pop.times - 0.0
            conc = cl * late * jnp.exp(-jnp.exp(eta) * 0.1 * late)
            hx.observe("dv", dist.LogNormal(jnp.log(conc + (late > 0) * 1e-3), 0.3), pop)

    program = hx.program(model, pop).program
    forward = Session(program, hx.FOCE(), pop, layout(program))
    expected = forward.evaluate(forward.layout.start(None))
    monkeypatch.setattr(objective, "FORWARD_PARAMETERS", 0)
    session = Session(program, hx.FOCE(), pop, layout(program))
    assert not session.forward
    found = session.evaluate(session.layout.start(None))
    assert session.forward
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=1e-12)


def test_a_datum_outside_the_support_is_said(theo_pop):
    def model(pop):
        sigma = numpyro.param("sigma", 0.3, constraint=zoo.POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 0.3))
            hx.observe("dv", dist.LogNormal(1.0 + eta + 0 * pop.times, sigma), pop)

    with pytest.warns(hx.HieraxWarning, match=r"subject 2, time 0.*outside the support of LogNormal"):
        hx.fit(model, theo_pop, hx.FOCE(), progress=False)


def test_the_second_of_two_endpoints_alone(tmp_path):
    rng = np.random.default_rng(1)
    rows = [(i, t, 3 + rng.normal(0, 0.3), e) for i in range(4) for t in range(4) for e in (1, 2)]
    pop = hx.read_nonmem(pd.DataFrame(rows, columns=["ID", "TIME", "DV", "DVID"]), endpoints={"cp": 1, "pca": 2})

    def model(pop):
        mu = numpyro.param("mu", 3.0)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 0.3))
            hx.observe("pca", dist.Normal(mu + eta + 0 * pop.times, 0.3), pop)

    fit = hx.fit(model, pop, hx.FOCE(), progress=False)
    assert fit.n_observations == fit.n_gaussian == 16
    assert "Individual fits: pca" in hx.report(fit, tmp_path / "r.html").read_text()
    assert fit.to_arviz(draws=8)["log_likelihood"]["pca"].shape[-1] == 16


def test_a_plain_numpyro_observation_and_lost_ids(pop, tmp_path):
    import jax

    def model(pop):
        mu = numpyro.param("mu", 4.0)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 0.5))
            with numpyro.plate("time", pop.n_records, dim=-1):
                numpyro.sample("y", dist.Normal(mu + eta - 0.5 * pop.times, 0.5), obs=pop.dv["dv"])

    fit = hx.fit(model, jax.device_put(pop), hx.FOCE(), progress=False)
    assert "Converged" in str(fit.summary())
    assert fit.ebe["subject"].to_numpy().tolist() == list(range(8))
    assert "Convergence" in hx.report(fit, tmp_path / "r.html").read_text()


DISTRIBUTIONS = {
    "truncated": lambda f: dist.TruncatedNormal(f, 0.5, low=0.0),
    "two-sided": lambda f: dist.TruncatedNormal(f, 0.5, low=0.0, high=20.0),
    "mixture": lambda f: dist.MixtureSameFamily(
        dist.Categorical(probs=jnp.array([0.3, 0.7])), dist.Normal(f[..., None] + jnp.array([0.0, 0.1]), 0.5)
    ),
    "student": lambda f: dist.StudentT(4.0, f, 0.5),
    "laplace": lambda f: dist.Laplace(f, 0.5),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_observe_takes_distributions_of_many_makes(pop, name):
    def model(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 0.5))
            hx.observe("dv", DISTRIBUTIONS[name](line(pop, eta)), pop)

    found = hx.evaluate(model, pop, {}, hx.Laplace())
    assert np.isfinite(found.log_likelihood)
    assert -100 < found.log_likelihood < 0


def test_categories(pop):
    frame = pop.to_frame()
    frame["DV"] = (frame["DV"] > 4).astype(int)

    def model(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 0.5))
            odds = eta + 1 - 0.5 * pop.times
            hx.observe("dv", dist.Categorical(logits=jnp.stack([0 * odds, odds], -1)), pop)

    def same(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 0.5))
            hx.observe("dv", dist.Bernoulli(logits=eta + 1 - 0.5 * pop.times), pop)

    data = hx.read_nonmem(frame)
    one, other = (hx.evaluate(m, data, {}, hx.FOCE()).log_likelihood for m in (model, same))
    assert one == pytest.approx(other, abs=1e-9)


def test_log_normal_below_a_limit_of_quantification_with_limit_zero():
    rows = [(1, 0.0, 1.5, 0, np.nan), (1, 1.0, 0.5, 1, 0.0), (2, 0.0, 1.0, 0, np.nan)]
    frame = pd.DataFrame(rows, columns=["ID", "TIME", "DV", "CENS", "LIMIT"])

    def model(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 0.7))
            hx.observe("dv", dist.LogNormal(eta + 0 * pop.times, 0.5), pop)

    interval = hx.evaluate(model, hx.read_nonmem(frame), {}, hx.AGQ(9, "full"))
    left = hx.evaluate(model, hx.read_nonmem(frame.drop(columns="LIMIT")), {}, hx.AGQ(9, "full"))
    assert interval.log_likelihood == pytest.approx(left.log_likelihood, abs=1e-9)
    assert (interval.n_observations, interval.n_gaussian) == (3, 2)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda pop: hx.evaluate(observed, pop, {}, hx.FOCE), r"is the class FOCE itself. Write hx.FOCE\(\)"),
        (lambda pop: hx.evaluate(observed, pop.to_frame(), {}, hx.FOCE()), r"population is a DataFrame"),
        (lambda pop: hx.evaluate(observed, pop, {}, "foce"), r"The estimator is 'foce'"),
        (lambda pop: hx.evaluate("model", pop, {}, hx.FOCE()), r"The model is a str"),
    ],
)
def test_slips_of_the_main_arguments(pop, call, text):
    with pytest.raises(ValueError, match=text):
        call(pop)


def test_a_missing_covariate_says_which_there_are(pop):
    with pytest.raises(KeyError, match=r"'AGE' is not in the population, which has \['WT'\]"):
        pop.covariates["AGE"]


def test_an_event_axis_taken_off_by_mistake_is_refused(pop):
    def model(pop):
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 0.5))
            level = numpyro.deterministic("level", eta[:, 0])
            hx.observe("dv", dist.Normal(level[:, None] + 0 * pop.times, 0.5), pop)

    with pytest.raises(hx.ModelError, match=r"Individual parameter 'level' has shape \(8,\)"):
        hx.program(model, pop)


@pytest.mark.parametrize("trials", [1, 5])
def test_logit_distributions_are_smooth_at_zero(trials):
    """NumPyro's formula gives 0 or 1 for the derivative at a logit of 0, where it is y - n/2."""
    import jax

    from hierax.program.smooth import SmoothBernoulliLogits, SmoothBinomialLogits

    for y in range(trials + 1):
        plain = dist.Bernoulli(logits=0.3) if trials == 1 else dist.Binomial(trials, logits=0.3)

        def log_prob(x, y=y):
            smooth = SmoothBernoulliLogits(x) if trials == 1 else SmoothBinomialLogits(x, trials)
            return smooth.log_prob(y)

        assert float(log_prob(0.3)) == pytest.approx(float(plain.log_prob(y)), abs=1e-12)
        assert float(jax.grad(log_prob)(0.0)) == pytest.approx(y - trials / 2, abs=1e-12)
        assert float(jax.hessian(log_prob)(0.0)) == pytest.approx(-trials / 4, abs=1e-12)
