"""Random effects by occasion, nested in the subject, ragged: against the multivariate normal they imply."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import zoo
from scipy import stats

import hierax as hx


@pytest.fixture(scope="module")
def pop():
    rng = np.random.default_rng(2)
    rows = []
    for subject, occasions in enumerate([[1, 2, 3], [1, 3], [2], [1, 2, 3]]):
        for occasion in occasions:
            rows += [(subject, 10.0 * occasion + t, 5 + rng.normal(0, 1), occasion) for t in range(3)]
    return hx.read_nonmem(pd.DataFrame(rows, columns=["ID", "TIME", "DV", "OCC"]))


def build(masked):
    def model(pop):
        omega = numpyro.param("omega", 0.8, constraint=zoo.POSITIVE)
        kappa = numpyro.param("kappa", 0.5, constraint=zoo.POSITIVE)
        sigma = numpyro.param("sigma", 0.6, constraint=zoo.POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, omega))
            with numpyro.plate("occasion", pop.n_occasions, dim=-1):
                mask = pop.occasion_mask if masked else True
                with numpyro.handlers.mask(mask=mask):
                    iov = numpyro.sample("iov", dist.Normal(0.0, kappa))
            level = 5 + eta + jnp.take_along_axis(iov, pop.occasion, axis=1)
            hx.observe("dv", dist.Normal(level, sigma), pop)

    return model


masked, unmasked = build(True), build(False)


def exact(pop, omega, kappa, sigma):
    total = 0.0
    for i in range(len(pop)):
        seen = pop.mask["dv"][i]
        occasion = pop.occasion[i][seen]
        same = occasion[:, None] == occasion[None, :]
        covariance = omega**2 + kappa**2 * same + sigma**2 * np.eye(seen.sum())
        total += stats.multivariate_normal.logpdf(pop.dv["dv"][i][seen], np.full(seen.sum(), 5.0), covariance)
    return total


@pytest.mark.parametrize("model", [masked, unmasked], ids=["masked", "unmasked"])
@pytest.mark.parametrize("estimator", [hx.FOCE(), hx.Laplace(), hx.FO()], ids=lambda e: e.label)
def test_against_the_exact_likelihood(pop, model, estimator):
    found = hx.evaluate(model, pop, {}, estimator)
    assert found.log_likelihood == pytest.approx(exact(pop, 0.8, 0.5, 0.6), abs=1e-9)


def test_the_unit_is_the_subject_with_all_its_occasions(pop):
    found = hx.evaluate(masked, pop, {}, hx.FOCE())
    assert found.program.effect_names == ("eta", "iov[0]", "iov[1]", "iov[2]")
    assert found.eta[2, [1, 3]].tolist() == [0.0, 0.0]
    assert found.eta[2, 2] != 0.0


def test_a_fit_with_occasions(pop):
    fit = hx.fit(masked, pop, hx.FOCE(), progress=False)
    values = [float(fit.params[name]) for name in ("omega", "kappa", "sigma")]
    assert fit.log_likelihood == pytest.approx(exact(pop, *values), abs=1e-9)
    for factor in (0.98, 1.02):
        for index in range(3):
            moved = [value * (factor if i == index else 1) for i, value in enumerate(values)]
            assert exact(pop, *moved) <= fit.log_likelihood + 1e-9


def test_absent_occasions_are_no_estimates(pop):
    from hierax.results.individual import shrinkage

    found = hx.evaluate(masked, pop, {}, hx.FOCE())
    assert np.isnan(found.ebe["eta"].sel(subject=2, eta_name="iov[0]"))
    present = [0, 1, 3]
    expected = 1 - found.eta[present, 1].std(ddof=1) / 0.5
    assert shrinkage(found).loc["iov[0]", "shrinkage (SD)"] == pytest.approx(expected, rel=1e-10)
    assert found.table().query("ID == 2")["iov[0]"].isna().all()
