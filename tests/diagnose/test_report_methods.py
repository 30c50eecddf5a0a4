"""Reports follow the method, and ids of any kind break nothing."""

import warnings

import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest

import hierax as hx

# Formulas to matplotlib, or to a spreadsheet, or to HTML.
IDS = ["$^$", "=1+1", "+A", "@SUM(A1)", "$a$b$", "<b>", "-x", "7"]


def normal(pop):
    mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
    omega = numpyro.sample("omega", dist.HalfNormal(2.0))
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, omega))
        numpyro.deterministic("LEVEL", mu + eta)
        hx.observe("dv", dist.Normal(mu + eta + 0.0 * pop.times, 0.5), pop)


@pytest.fixture(scope="module")
def pop():
    rng = np.random.default_rng(3)
    values = 5 + rng.standard_normal((len(IDS), 1)) + 0.5 * rng.standard_normal((len(IDS), 4))
    frame = pd.DataFrame({"ID": np.repeat(IDS, 4), "TIME": np.tile(np.arange(4.0), len(IDS)), "DV": values.ravel()})
    return hx.read_nonmem(frame)


ESTIMATORS = {
    "nuts": hx.NUTS(chains=2, warmup=200, draws=300),
    "saem": hx.SAEM(exploratory=100, smoothing=100),
    "vi": hx.VI(),
    "vi_full": hx.VI(population="full"),
    "map": hx.MAP(),
    "foce": hx.FOCE(),
}


@pytest.fixture(scope="module")
def texts(pop, tmp_path_factory):
    folder, out = tmp_path_factory.mktemp("reports"), {}
    for name, estimator in ESTIMATORS.items():
        with warnings.catch_warnings():
            # How well a short run has done is not what is looked at here.
            warnings.simplefilter("ignore", hx.HieraxWarning)
            fit = hx.fit(normal, pop, estimator, progress=False)
            out[name] = hx.report(fit, folder / f"{name}.html").read_text(), fit
    return out


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_no_report_shows_a_nan_or_another_methods_reference(texts, name):
    text, fit = texts[name]
    assert "OFV nan" not in text
    assert ">nan<" not in text.lower()
    own = (fit.method or fit.estimator).citation
    if own:
        assert own.replace("&", "&amp;") in text
    if name not in ("foce", "map"):
        assert "Wang (2007)" not in text
    assert "OFV nan" not in repr(fit)


def test_report_of_chains_is_of_the_posterior(texts):
    text, _ = texts["nuts"]
    for piece in ("<h2>Chains", "<h2>Parameters: the posterior", "r_hat", "ess_bulk", "ess_tail", "mcse"):
        assert piece in text
    assert "draws diverged" in text
    assert "Effective sample size at least" in text
    for other in ("Hessian", "hessian", "standard errors", "condition number"):
        assert other not in text


def test_report_of_saem_names_louis(texts):
    text, fit = texts["saem"]
    assert "Kuhn &amp; Lavielle (2005)" in text
    assert "SE by the louis covariance" in text
    assert "Louis&#x27; formula" in text
    assert "hessian covariance" not in text
    figure = hx.plot.convergence(fit)
    assert [axis.get_title() for axis in figure.axes if axis.get_visible()] == [
        "complete log likelihood",
        "mu",
        "omega",
    ]


def test_report_of_vi_shows_its_bound(texts):
    text, fit = texts["vi"]
    assert f"Bound of the log likelihood {fit.variational.elbo[0]:.3f}" in text
    assert "Kingma &amp; Welling" in text
    assert hx.plot.convergence(fit).axes[0].get_ylabel() == "bound of the log likelihood"


def test_traces_are_the_chains(texts):
    fit = texts["nuts"][1]
    figure = hx.plot.traces(fit)
    panel = next(axis for axis in figure.axes if axis.get_title() == "mu")
    from hierax.results.uncertainty.posterior import elements

    np.testing.assert_array_equal(panel.lines[1].get_ydata(), elements(fit)["mu"][1])
    with pytest.raises(ValueError, match="the fit has no chains"):
        hx.plot.traces(texts["foce"][1])


def test_ids_are_no_mathematics(texts):
    figure = hx.plot.individual_fits(texts["foce"][1])
    titles = [axis.get_title() for axis in figure.axes if axis.get_visible()]
    assert titles[0] == r"\$^\$"
    figure.canvas.draw()
