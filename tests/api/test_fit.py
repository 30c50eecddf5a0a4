"""Options, messages and failures of ``hx.fit``."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import zoo

import hierax as hx
from hierax.infer.marginal.session import Session


@pytest.fixture(scope="module")
def wang():
    return zoo.wang_population()


def fit(model, pop, **options):
    return hx.fit(model, pop, hx.FOCE(), progress=False, **options)


def test_fixed_sites_and_elements_do_not_move(sleep_pop):
    out = fit(zoo.lines_diagonal, sleep_pop, fixed={"sigma": True, "omega": [True, False]}, init={"sigma": 25.0})
    assert float(out.params["sigma"]) == pytest.approx(25.0, rel=1e-15)
    assert out.params["omega"][0] == pytest.approx(np.sqrt(600.0), rel=1e-15)
    assert out.params["omega"][1] != pytest.approx(np.sqrt(40.0))
    assert out.n_parameters == 3
    assert out.summary().loc["sigma", "note"] == "fixed"
    assert np.isnan(out.summary().loc["sigma", "SE"])


def test_everything_fixed_is_an_evaluation(wang):
    out = fit(zoo.wang_additive, wang, fixed=["rate", "omega", "sigma"])
    assert out.ofv == pytest.approx(-2.0588, abs=1e-3)
    assert "nothing is free" in out.why
    assert len(out.summary()) == 3


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (dict(fixed=["tau"]), r"fixed names the site 'tau'.*\['rate', 'omega', 'sigma'\]"),
        (dict(fixed={"omega": [True, False]}), r"mask of shape \(2,\)"),
        (dict(init={"tau": 1.0}), r"init names the site 'tau'"),
        (dict(init={"omega": [1.0, 2.0]}), r"init\['omega'\] has shape \(2,\), but the site has shape \(\)"),
        (dict(init={"omega": -1.0}), r"start of 'omega'.*outside its constraint"),
        (dict(priors={"tau": dist.Normal(0, 1)}), r"priors names the site 'tau'"),
        (dict(priors={"omega": dist.Normal(0, 1)}), r"priors\['omega'\] has support Real"),
        (dict(priors={"omega": 3.0}), r"must be a NumPyro distribution"),
        (dict(use_priors="some"), r"use_priors='some' is not known"),
    ],
)
def test_requests_that_the_program_cannot_meet(wang, options, text):
    with pytest.raises(ValueError, match=text):
        fit(zoo.wang_additive, wang, **options)


def test_a_matrix_is_fixed_as_a_whole(sleep_pop):
    with pytest.raises(ValueError, match="its elements depend on one another"):
        fit(zoo.lines_full, sleep_pop, fixed={"Omega": [[True, False], [False, True]]})
    out = fit(zoo.lines_full, sleep_pop, fixed=["Omega"])
    np.testing.assert_allclose(out.params["Omega"], np.diag([600.0, 40.0]), rtol=1e-12)


def test_several_starts_keep_the_best_and_all_histories(wang):
    out = fit(zoo.wang_proportional, wang, starts=3, seed=1)
    assert out.history["start"].unique().tolist() == [0, 1, 2]
    assert out.ofv <= out.history["ofv"].min() + 1e-9
    assert {"iteration", "ofv", "gradient", "step", "seconds"} <= set(out.history.columns)
    assert out.starts["evaluations"].sum() == len(out.history)
    assert out.starts["ofv"].min() == pytest.approx(out.ofv, abs=1e-9)
    assert "3 starts; lowest OFV (and how many starts reached it): " in str(out.summary())


def test_starts_that_end_in_different_optima_are_told_apart(theo_pop):
    # Theophylline has a second, flip-flop optimum at -2 log L 352.935, OFV 110.335.
    init = {"cl": 2.72, "ka": 0.085, "v": 1.68, "omega": np.array([0.01, 0.17, 0.6]), "sigma": 0.71}
    out = fit(zoo.theophylline, theo_pop, init=init, starts=2)
    assert out.starts["optimum"].tolist() == [1, 2]
    np.testing.assert_allclose(out.starts["ofv"], [110.335, 116.803], atol=2e-3)
    assert "110.335 (1), 116.803 (1)" in str(out.summary())


def test_priors_count_only_when_asked(wang):
    def model(pop):
        rate = numpyro.sample("rate", dist.LogNormal(jnp.log(0.4), 0.01))
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 0.2))
            hx.observe("dv", dist.Normal(10 * jnp.exp(-rate * jnp.exp(eta) * pop.times), 0.3), pop)

    free = fit(model, wang)
    assert free.ignored_priors == ["rate"]
    assert "Priors ignored by this estimator: rate" in str(free.summary())
    assert free.penalty == 0.0
    tied = fit(model, wang, use_priors=True)
    assert tied.ignored_priors == []
    assert abs(float(tied.params["rate"]) - 0.4) < abs(float(free.params["rate"]) - 0.4)
    assert tied.penalty != 0.0
    assert tied.log_likelihood < free.log_likelihood
    # The reported objective is the likelihood's, whatever counted in the search.
    assert tied.ofv == pytest.approx(hx.evaluate(model, wang, tied.params, hx.FOCE()).ofv, abs=1e-9)
    given = fit(model, wang, priors={"rate": dist.LogNormal(jnp.log(0.4), 10.0)}, use_priors=True)
    assert float(given.params["rate"]) == pytest.approx(float(free.params["rate"]), rel=1e-2)


def test_a_previous_fit_as_prior(sleep_pop):
    """With the variances fixed all is Gaussian: precisions add, and so the two halves give the whole, exactly."""
    first, second = sleep_pop[:8], sleep_pop[8:]
    fixed = ["Omega", "sigma"]
    one, other, whole = (fit(zoo.lines_full, pop, fixed=fixed) for pop in (first, second, sleep_pop))
    both = fit(zoo.lines_full, second, fixed=fixed, priors=one, use_priors=True)
    # Both searches stop within gtol, 1e-4 of a standard error.
    distance = np.abs(both.params["beta"] - whole.params["beta"]) / whole.covariance().se
    assert (distance < 2e-4).all()
    np.testing.assert_allclose(both.covariance().se, whole.covariance().se, rtol=1e-6)
    ignoring = fit(zoo.lines_full, second, fixed=fixed, priors=one)
    assert ignoring.ignored_priors == ["beta"]
    np.testing.assert_allclose(ignoring.params["beta"], other.params["beta"], rtol=1e-9)


def test_what_a_model_does_not_identify_is_named(wang):
    def model(pop):
        a = numpyro.param("a", 1.0, constraint=zoo.POSITIVE)
        b = numpyro.param("b", 0.5, constraint=zoo.POSITIVE)
        sigma = numpyro.param("sigma", 0.3, constraint=zoo.POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 0.2))
            hx.observe("dv", dist.Normal(10 * jnp.exp(-a * b * jnp.exp(eta) * pop.times), sigma), pop)

    out = fit(model, wang)
    covariance = out.covariance()
    assert not covariance.ok
    assert set(covariance.unidentified) == {"a", "b"}
    text = str(out.summary())
    assert "Not identified by the data: a, b" in text
    assert out.summary().loc["a", "note"] == "not identified"


def test_parameters_that_are_not_in_the_objective_are_held_and_said(wang):
    out = hx.fit(zoo.wang_additive, wang, hx.NaivePooled(), progress=False)
    assert out.held == ["omega"]
    assert out.summary().loc["omega", "note"] == "not in this objective; held"


def test_an_interrupted_fit_returns_what_is_there(wang, monkeypatch):
    from hierax.infer.marginal.session import Session

    plain, calls = Session.evaluate, []

    def interrupt(self, flat, eta=None):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return plain(self, flat, eta)

    monkeypatch.setattr(Session, "evaluate", interrupt)
    with pytest.warns(hx.HieraxWarning, match=r"did not converge \(interrupted\)"):
        out = fit(zoo.wang_proportional, wang, starts=2)
    assert out.result is hx.Result.interrupted
    assert len(out.history) == 4
    assert str(out.summary()).startswith("NOT CONVERGED (interrupted)")


def test_an_interruption_of_a_later_start_keeps_the_earlier_ones(wang, monkeypatch):
    from hierax.infer.marginal.session import Session

    plain, searches = Session.search, []

    def interrupt(self, *arguments):
        searches.append(1)
        if len(searches) == 2:
            raise KeyboardInterrupt
        return plain(self, *arguments)

    monkeypatch.setattr(Session, "search", interrupt)
    with pytest.warns(hx.HieraxWarning, match="interrupted"):
        out = fit(zoo.wang_proportional, wang, starts=3)
    monkeypatch.undo()
    assert out.ofv == pytest.approx(fit(zoo.wang_proportional, wang).ofv, abs=1e-6)


def test_an_iteration_limit_is_warned_of_or_raised(wang):
    short = hx.FOCE(optimiser=hx.QuasiNewton(max_iter=2))
    with pytest.warns(hx.HieraxWarning, match=r"did not converge \(max_iterations\)"):
        hx.fit(zoo.wang_proportional, wang, short, progress=False)
    with pytest.raises(hx.FitError, match="max_iterations"):
        hx.fit(zoo.wang_proportional, wang, short, progress=False, throw=True)


def test_a_zero_scale_names_subject_time_endpoint_and_remedy():
    frame = pd.DataFrame({"ID": ["a", "a", "b", "b"], "TIME": [0.0, 1, 0, 2], "DV": [1.0, 2, 3, 4]})

    def model(pop):
        slope = numpyro.param("slope", 1.0)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
            f = (slope + eta) * pop.times + jnp.where(pop.times == 0, 0.0, 1.0)
            hx.observe("dv", dist.Normal(f, 0.1 * jnp.abs(f)), pop)

    pop = hx.read_nonmem(frame)
    with pytest.warns(
        hx.HieraxWarning, match=r"Site 'dv' has no finite log density at subject a, time 0.*additive error"
    ):
        out = fit(model, pop)
    assert out.result is hx.Result.non_finite


def test_the_progress_line_shows_objective_and_gradient(wang, capsys):
    hx.fit(zoo.wang_additive, wang, hx.FOCE())
    out, printed = capsys.readouterr()
    assert "FOCE with interaction starts at" in out
    assert "rate 0.5" in out
    assert "FOCE with interaction" in printed
    assert "OFV -" in printed
    assert "gradient" in printed


def test_the_same_call_gives_the_same_numbers(wang):
    one, other = fit(zoo.wang_additive, wang, starts=2), fit(zoo.wang_additive, wang, starts=2)
    assert (one.flat == other.flat).all()
    assert (one.eta == other.eta).all()


def test_padded_and_plain_populations_give_the_same_fit(wang):
    one = fit(zoo.wang_additive, wang)
    other = fit(zoo.wang_additive, wang.pad(12))
    assert one.ofv == pytest.approx(other.ofv, abs=1e-8)
    assert one.n_gaussian == other.n_gaussian == 20
    assert len(other.table()) == 20
    assert other.ebe.sizes["subject"] == 10


def test_float32_is_warned_of_once():
    import subprocess
    import sys

    code = (
        "import warnings, zoo, jax; jax.config.update('jax_enable_x64', False)\n"
        "import hierax as hx\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always')\n"
        "    for _ in range(2): out = hx.evaluate(zoo.wang_additive, zoo.wang_population(), {}, hx.NaivePooled())\n"
        "print(sum('float32' in str(w.message) for w in seen), 'enable_x64' in str(seen[0].message), out.ofv)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="tests", check=True)
    assert done.stdout.split()[:2] == ["1", "True"]


def test_importing_changes_no_global_state():
    import subprocess
    import sys

    code = "import jax; before = dict(jax.config.values); import hierax; print(before == dict(jax.config.values))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_an_interrupted_fit_goes_on_where_it_stood(theo_pop, theo_fit, tmp_path):
    """Bitwise the uninterrupted one; what was evaluated before is not evaluated again."""
    file = tmp_path / "fit.ckpt"
    with pytest.MonkeyPatch.context() as patch:
        count = iter(range(100))
        original = Session.evaluate

        def interrupting(self, flat, eta=None):
            if next(count) == 8:
                raise KeyboardInterrupt
            return original(self, flat, eta)

        patch.setattr(Session, "evaluate", interrupting)
        with pytest.warns(hx.HieraxWarning, match="interrupted"):
            part = hx.fit(zoo.theophylline, theo_pop, hx.FOCE(), progress=False, checkpoint=file)
    assert 0 < len(part.history) < len(theo_fit.history)
    resumed = hx.fit(zoo.theophylline, theo_pop, hx.FOCE(), progress=False, checkpoint=file)
    assert np.array_equal(resumed.flat, theo_fit.flat)
    assert np.array_equal(resumed.history["ofv"], theo_fit.history["ofv"])
    assert resumed.timing["evaluations"] < theo_fit.timing["evaluations"]
    with pytest.raises(ValueError, match="another fit's, because these differ: estimator"):
        hx.fit(zoo.theophylline, theo_pop, hx.FOCE(interaction=False), progress=False, checkpoint=file)
