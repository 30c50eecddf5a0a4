"""Summary, tables, covariances, ArviZ data, LOO and storage of one fit."""

import arviz as az
import numpy as np
import pandas as pd
import pytest
import zoo

import hierax as hx


def test_summary_is_a_table_with_lines_around_it(theo_fit):
    summary = theo_fit.summary()
    assert list(summary.columns) == ["estimate", "SE", "RSE %", "2.5 %", "97.5 %", "note"]
    assert list(summary.index) == ["ka", "cl", "v", "omega[0]", "omega[1]", "omega[2]", "sigma"]
    text = str(summary)
    assert text.startswith("Converged: ")
    assert "FOCE with interaction; OFV = -2 log L - 132·log(2π)" in text
    assert "N = 12 subjects" in text
    assert "N = 132 observations" in text
    assert "shrinkage (variance)" in text
    assert "CV % (if log-normal)" in text
    assert isinstance(summary, pd.DataFrame)
    assert "Converged" in summary._repr_html_()


def test_intervals_are_wald_in_unconstrained_space(theo_fit):
    summary = theo_fit.summary()
    se = np.sqrt(theo_fit.covariance().unconstrained.loc["ka", "ka"])
    ends = summary.loc["ka", "estimate"] * np.exp([-1.959964 * se, 1.959964 * se])
    np.testing.assert_allclose(summary.loc["ka", ["2.5 %", "97.5 %"]].astype(float), ends, rtol=1e-6)
    assert summary.loc["ka", "SE"] == pytest.approx(summary.loc["ka", "estimate"] * se, rel=1e-10)


def test_aic_and_bic(theo_fit):
    assert theo_fit.aic == pytest.approx(359.40319 + 14, abs=1e-4)
    assert theo_fit.bic("subjects") == pytest.approx(359.40319 + 7 * np.log(12), abs=1e-4)
    assert theo_fit.bic("observations") == pytest.approx(359.40319 + 7 * np.log(132), abs=1e-4)
    with pytest.raises(ValueError, match="Use one of"):
        theo_fit.bic("rows")


def test_covariances(theo_fit):
    hessian, score, sandwich = (theo_fit.covariance(kind) for kind in ("hessian", "score", "sandwich"))
    r, s = np.linalg.inv(hessian.unconstrained), np.linalg.inv(score.unconstrained)
    inverse = hessian.unconstrained.to_numpy()
    np.testing.assert_allclose(sandwich.unconstrained, inverse @ s @ inverse, rtol=1e-8)
    np.testing.assert_allclose(r, r.T, rtol=1e-8)
    assert hessian.condition_number > 1
    np.testing.assert_allclose(np.diag(hessian.correlation), 1.0)
    with pytest.raises(ValueError, match="Use 'hessian', 'sandwich', 'score' or 'louis'"):
        theo_fit.covariance("fisher")


def test_hessian_of_the_covariance_is_that_of_the_objective(sleep_pop):
    """Linear model with a flat prior: the fixed effects' block is exact, (Σ XᵀV⁻¹X)⁻¹ (balanced: no cross terms)."""
    fit = hx.fit(zoo.lines_diagonal, sleep_pop, hx.FOCE(), progress=False)
    times = sleep_pop.times[0]
    design = np.column_stack([np.ones(10), times])
    variance = design @ np.diag(fit.params["omega"] ** 2) @ design.T + float(fit.params["sigma"]) ** 2 * np.eye(10)
    exact = np.linalg.inv(18 * design.T @ np.linalg.solve(variance, design))
    found = fit.covariance().unconstrained.loc[["beta[0]", "beta[1]"], ["beta[0]", "beta[1]"]]
    np.testing.assert_allclose(found, exact, rtol=1e-6, atol=1e-8)


def test_correlations_of_a_full_covariance(sleep_pop):
    fit = hx.fit(zoo.lines_full, sleep_pop, hx.FOCE(), progress=False)
    text = str(fit.summary())
    assert "Correlations of random effects" in text
    assert list(fit.summary().index) == ["beta[0]", "beta[1]", "Omega[0,0]", "Omega[1,0]", "Omega[1,1]", "sigma"]
    assert (fit.summary().loc["Omega[0,0]", ["2.5 %", "97.5 %"]].astype(float) > 0).all()


def test_shrinkage_has_both_forms(theo_fit):
    from hierax.results.individual import shrinkage

    table = shrinkage(theo_fit)
    eta = theo_fit.ebe["eta"].sel(eta_name="eta[2]").to_numpy()
    ratio = eta.std(ddof=1) / theo_fit.params["omega"][2]
    assert table.loc["eta[2]", "shrinkage (SD)"] == pytest.approx(1 - ratio, rel=1e-9)
    assert table.loc["eta[2]", "shrinkage (variance)"] == pytest.approx(1 - ratio**2, rel=1e-9)


def test_table_of_records(theo_fit, theo_pop):
    table = theo_fit.table()
    assert len(table) == 144
    assert {"ID", "TIME", "DV", "PRED", "IPRED", "IRES", "IWRES", "eta[0]", "CL", "V", "KA", "WT"} <= set(table.columns)
    seen = table.dropna(subset=["DV"])
    assert len(seen) == 132
    np.testing.assert_allclose(seen["IRES"], seen["DV"] - seen["IPRED"])
    np.testing.assert_allclose(seen["IWRES"], seen["IRES"] / float(theo_fit.params["sigma"]))
    row = seen.iloc[5]
    k = row["CL"] / row["V"]
    dose = theo_pop.events.amount[0, 0]
    expected = (
        dose * row["KA"] / row["V"] / (row["KA"] - k) * (np.exp(-k * row["TIME"]) - np.exp(-row["KA"] * row["TIME"]))
    )
    assert row["IPRED"] == pytest.approx(expected, rel=1e-10)


def test_subject_objectives_add_up(theo_fit):
    assert theo_fit.subject_objective.sum() == pytest.approx(-2 * theo_fit.log_likelihood, rel=1e-12)
    assert (theo_fit.subject_results == "converged").all()


@pytest.fixture(scope="module")
def arviz_data(theo_fit):
    return theo_fit.to_arviz(draws=400)


def test_arviz_groups_summary_and_forest(arviz_data, theo_fit):
    import matplotlib

    matplotlib.use("Agg")
    table = az.summary(arviz_data)
    assert table.loc["cl"].iloc[0] == pytest.approx(2.75, abs=0.1)
    az.plot_forest(arviz_data)
    assert arviz_data["posterior"]["omega"].shape == (1, 400, 3)
    assert arviz_data["log_likelihood"]["dv"].shape == (1, 400, 132)
    assert np.isfinite(arviz_data["log_likelihood"]["dv"]).all()
    assert arviz_data["log_likelihood"]["dv"].dims[-1] == "obs"
    assert set(np.unique(arviz_data["log_likelihood"]["subject"])) == set(range(1, 13))
    marginal = arviz_data["log_likelihood_subject"]["subject_log_likelihood"]
    assert marginal.shape == (1, 400, 12)
    assert arviz_data["ebe"]["eta"].shape == (12, 3)
    assert float(arviz_data["fit_stats"]["ofv"]) == pytest.approx(theo_fit.ofv)
    assert arviz_data["observed_data"]["dv"].shape == (132,)


def test_draws_have_the_covariance_they_should(theo_fit):
    from hierax.results.uncertainty.draws import asymptotic_draws

    draws = asymptotic_draws(theo_fit, 4000, 0)
    names = theo_fit.layout.names()
    expected = theo_fit.covariance().unconstrained.loc[names, names].to_numpy()
    spread = np.sqrt(np.diag(expected))
    # Correlations of 4000 draws: five standard errors of 1/sqrt(4000).
    np.testing.assert_allclose(
        np.cov(draws.T) / np.outer(spread, spread), expected / np.outer(spread, spread), atol=0.08
    )


@pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto")
@pytest.mark.parametrize(("unit", "count"), [("subject", 12), ("obs", 132)])
def test_loo(theo_fit, unit, count):
    found = hx.loo(theo_fit, unit=unit, draws=400)
    assert found.n_data_points == count
    elpd = found.elpd if hasattr(found, "elpd") else found.elpd_loo
    assert elpd < theo_fit.log_likelihood + 40
    assert np.isfinite(elpd)
    with pytest.raises(ValueError, match="Use 'subject' or 'obs'"):
        hx.loo(theo_fit, unit="study")


def test_save_and_load(theo_fit, theo_pop, tmp_path):
    path = tmp_path / "fit.hierax"
    theo_fit.save(path)
    again = hx.load_fit(path, zoo.theophylline, theo_pop)
    assert again.ofv == theo_fit.ofv
    assert again.result is theo_fit.result
    assert again.estimator == theo_fit.estimator
    np.testing.assert_array_equal(again.flat, theo_fit.flat)
    np.testing.assert_allclose(again.covariance().unconstrained, theo_fit.covariance().unconstrained, rtol=1e-8)
    pd.testing.assert_frame_equal(again.history, theo_fit.history)
    assert b"pickle" not in path.read_bytes()
    with pytest.raises(ValueError, match="its data differ"):
        hx.load_fit(path, zoo.theophylline, theo_pop[:3])

    def other(pop):
        import numpyro

        numpyro.param("extra", 1.0)
        zoo.theophylline(pop)

    with pytest.raises(ValueError, match=r"The program's parameters are .*extra"):
        hx.load_fit(path, other, theo_pop)


def test_priors_survive_saving(tmp_path):
    import numpyro.distributions as dist

    pop = zoo.wang_population()
    priors = {"rate": dist.LogNormal(np.log(0.5), 0.05)}
    fit = hx.fit(zoo.wang_additive, pop, hx.FOCE(), progress=False, priors=priors, use_priors=True)
    fit.save(tmp_path / "fit.hierax")
    with pytest.raises(ValueError, match=r"was given priors for \['rate'\].*Pass the same with priors="):
        hx.load_fit(tmp_path / "fit.hierax", zoo.wang_additive, pop)
    again = hx.load_fit(tmp_path / "fit.hierax", zoo.wang_additive, pop, priors=priors)
    np.testing.assert_allclose(again.covariance().se, fit.covariance().se, rtol=1e-8)
    # The history shows the objective, not the penalised one that the search minimised.
    assert fit.history["ofv"].iloc[-1] == pytest.approx(fit.ofv, abs=1e-6)
    assert fit.penalty != 0


def test_naive_pooling_has_no_shrinkage():
    fit = hx.fit(zoo.wang_additive, zoo.wang_population(), hx.NaivePooled(), progress=False)
    from hierax.results.individual import shrinkage

    assert shrinkage(fit)["shrinkage (SD)"].isna().all()
    assert np.isnan(fit.ebe["eta_sd"]).all()
