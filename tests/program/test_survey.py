"""What ``check``, ``fit`` and ``evaluate`` say of a program with these data: masks of data sites, idle parameters."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import zoo
from numpyro import handlers

import hierax as hx

POSITIVE = dist.constraints.positive


def program(site):
    """Return one oral compartment without random effects, observed by ``site(conc, sigma, pop)``."""

    def model(pop):
        ka, cl, v = (
            numpyro.param(name, value, constraint=POSITIVE)
            for name, value in zip(("ka", "cl", "v"), (1.5, 2.8, 32.0), strict=True)
        )
        sigma = numpyro.param("sigma", 1.0, constraint=POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            site(hx.pk.one_compartment(pop, CL=cl, V=v, ka=ka), sigma, pop)

    return model


def plain(conc, sigma, pop):
    with numpyro.plate("time", pop.n_records, dim=-1):
        numpyro.sample("dv", dist.Normal(conc, sigma), obs=pop.dv["dv"])


def by_event(conc, sigma, pop):
    numpyro.sample("y", dist.Normal(conc[:, None], sigma).to_event(1), obs=pop.dv["dv"][:, None])


def of_logs(conc, sigma, pop):
    with numpyro.plate("time", pop.n_records, dim=-1):
        numpyro.sample("y", dist.Normal(jnp.log(conc + 1), sigma), obs=jnp.log(pop.dv["dv"] + 1))


def records_masked(conc, sigma, pop):
    with numpyro.plate("time", pop.n_records, dim=-1), handlers.mask(mask=pop.times < 12):
        numpyro.sample("dv", dist.Normal(conc, sigma), obs=pop.dv["dv"])


def masked(conc, sigma, pop):
    with numpyro.plate("time", pop.n_records, dim=-1), handlers.mask(mask=pop.mask["dv"]):
        numpyro.sample("y", dist.Normal(conc, sigma), obs=pop.dv["dv"])


def observed(conc, sigma, pop):
    hx.observe("dv", dist.Normal(conc, sigma), pop)


def of_other_data(conc, sigma, pop):
    """Data of the user's own, on as many columns as there are records."""
    with numpyro.plate("time", pop.n_records, dim=-1):
        numpyro.sample("z", dist.Normal(0 * conc, sigma), obs=pop.data["z"])
    observed(conc, sigma, pop)


@pytest.mark.parametrize("site", [plain, by_event, of_logs, records_masked])
def test_a_site_that_counts_dose_rows_is_said(theo_pop, site):
    model = program(site)
    how = "another mask" if site is records_masked else "no mask"
    name = "dv" if site in (plain, records_masked) else "y"
    right = int((theo_pop.mask["dv"] & (theo_pop.times < 12)).sum()) if site is records_masked else 132
    counted = rf"12 entries .*\(12 dose rows\) as data, besides {right} observations"
    said = rf"'{name}' has {how} on the record axis, .* {counted}"
    with pytest.warns(hx.HieraxWarning, match=said):
        hx.check(model, theo_pop, show=False)


def test_a_fit_says_what_it_counts(theo_pop):
    with pytest.warns(hx.HieraxWarning, match=r"12 entries that are not observations \(12 dose rows\)"):
        counted = hx.fit(program(plain), theo_pop, hx.NaivePooled(), progress=False)
    right = hx.fit(program(observed), theo_pop, hx.NaivePooled(), progress=False)
    assert (counted.n_observations, right.n_observations) == (144, 132)
    # The maximum-likelihood SD of the residuals: of these predictions, over all rows, and over the observations.
    table = right.table()
    residual = (table["DV"] - table["PRED"]).dropna()
    assert len(residual) == 132
    assert right.params["sigma"] == pytest.approx(np.sqrt(np.mean(residual**2)), rel=1e-4)
    assert counted.params["sigma"] < right.params["sigma"]


@pytest.mark.parametrize("site", [observed, masked, of_other_data])
def test_sites_that_count_their_data_alone_are_not(theo_pop, site):
    pop = theo_pop.with_data(z=np.ones(np.shape(theo_pop.times)))
    hx.check(program(site), pop, show=False)


def test_padding_and_rows_of_other_endpoints_count_too():
    subjects = [
        hx.Subject(1, hx.Regimen(100), [1.0, 2.0, 3.0], {"dv": [9.0, 7.0, 5.0], "pd": [np.nan, 1.0, np.nan]}),
        hx.Subject(2, hx.Regimen(100), [1.0], {"dv": [8.0], "pd": [np.nan]}),
    ]
    pop = hx.Population.from_subjects(subjects)

    def site(conc, sigma, pop):
        observed(conc, sigma, pop)
        with numpyro.plate("records", pop.n_records, dim=-1):
            numpyro.sample("pd", dist.Normal(conc, sigma), obs=pop.dv["pd"])

    wrong = 2 * pop.n_records - 1
    doses = 2
    padding = int((~np.asarray(pop.record_mask)).sum())
    said = (
        rf"'pd'.* {wrong} entries .*\({doses} dose rows, {padding} entries of padding, {wrong - doses - padding} other"
    )
    with pytest.warns(hx.HieraxWarning, match=said):
        hx.check(program(site), pop, show=False)


def test_parameters_of_doses_that_are_not_there_are_said_by_the_check_alone(theo_pop, capsys):
    def model(pop):
        sigma = numpyro.param("sigma", 1.0, constraint=POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            conc = hx.pk.one_compartment(
                pop, CL=2.8, V=32.0, ka=1.5, rate=3.0, duration={2: 1.0}, lag={1: 0.1, 2: 0.5}, F={2: 0.5}
            )
            observed(conc, sigma, pop)

    hx.check(model, theo_pop)
    printed = capsys.readouterr().out
    assert "rate does nothing with these data, because there are no doses with RATE -1." in printed
    assert "duration does nothing with these data, because there are no doses with RATE -2." in printed
    assert "lag for compartment 2 does nothing with these data, because there are no doses into it." in printed
    assert "F for compartment 2 does nothing with these data, because there are no doses into it." in printed
    bare = hx.evaluate(zoo.theophylline, theo_pop, {}, hx.NaivePooled())
    assert np.isfinite(hx.evaluate(model, theo_pop, {}, hx.NaivePooled()).ofv)
    assert bare.ignored_priors == []


def test_evaluate_reports_the_penalty_of_the_priors_that_count(theo_pop):
    def model(pop):
        cl = numpyro.sample("cl", dist.LogNormal(1.0, 0.5))
        sigma = numpyro.param("sigma", 1.0, constraint=POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            observed(hx.pk.one_compartment(pop, CL=cl, V=32.0, ka=1.5), sigma, pop)

    at, prior = {"cl": 2.0, "sigma": 0.8}, -float(dist.LogNormal(1.0, 0.5).log_prob(2.0))
    auto, counted = (hx.evaluate(model, theo_pop, at, hx.NaivePooled(), use_priors=use) for use in ("auto", True))
    assert (auto.penalty, auto.ignored_priors) == (0.0, ["cl"])
    assert counted.penalty == pytest.approx(prior, rel=1e-12)
    assert counted.ignored_priors == []
    assert counted.ofv == auto.ofv
    given = hx.evaluate(model, theo_pop, at, hx.NaivePooled(), priors={"sigma": dist.HalfNormal(1.0)}, use_priors=True)
    assert given.penalty == pytest.approx(prior - float(dist.HalfNormal(1.0).log_prob(0.8)), rel=1e-12)


def test_a_table_with_a_subject_without_data_divides_by_nothing(theo_pop):
    """Proportional error: the SD is 0 where nothing was observed and nothing is predicted."""

    def model(pop):
        sigma = numpyro.param("sigma", 0.2, constraint=POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 0.3))
            conc = hx.pk.one_compartment(pop, CL=2.8 * jnp.exp(eta), V=32.0, ka=1.5)
            hx.observe("dv", dist.Normal(conc, sigma * conc), pop)

    pop = hx.Population.from_subjects(
        [
            hx.Subject(1, hx.Regimen(100), [1.0, 2.0], {"dv": [2.0, 1.5]}),
            hx.Subject(2, hx.Regimen(100, time=3.0), [1.0, 2.0], {"dv": [np.nan, np.nan]}),
        ]
    )
    table = hx.evaluate(model, pop, {}, hx.FOCE()).table()
    assert table["IWRES"].notna().sum() == 2
    first = table[table["DV"].notna()].iloc[0]
    assert first["IWRES"] == pytest.approx((2.0 - first["IPRED"]) / (0.2 * first["IPRED"]), rel=1e-12)


# -- data that a site cannot count as they are ------------------------------------------------------------------------


def counts(fn):
    def model(pop):
        level = numpyro.param("level", 0.5)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 0.3))
            hx.observe("dv", fn(level + eta + 0 * pop.times), pop)

    return model


@pytest.mark.parametrize(
    ("fn", "value", "kind"),
    [
        (lambda x: dist.Poisson(jnp.exp(x)), 1.5, "Poisson"),
        (lambda x: dist.NegativeBinomial2(jnp.exp(x), 2.0), 2.9, "NegativeBinomial2"),
        (lambda x: dist.Bernoulli(logits=x), 2.0, "Bernoulli"),
        (lambda x: dist.Bernoulli(logits=x), 0.5, "Bernoulli"),
        (lambda x: dist.OrderedLogistic(x, jnp.array([0.0, 1.0])), 1.5, "OrderedLogistic"),
    ],
)
def test_data_that_a_discrete_distribution_cannot_produce_are_refused(fn, value, kind):
    """They were rounded down: counts of 1.5 were counts of 1, and the fit converged."""
    subjects = [hx.Subject(name, None, [0.0, 1.0], {"dv": [1.0, y]}) for name, y in (("A", 0.0), ("B", value))]
    pop = hx.Population.from_subjects(subjects)
    text = rf"'dv' is {kind}.*cannot produce 1 of its data; the first is {value:g} at subject B, time 1"
    for run in (lambda *a: hx.check(*a, show=False), lambda *a: hx.evaluate(*a, {}, hx.Laplace())):
        with pytest.raises(hx.ModelError, match=text):
            run(counts(fn), pop)


def test_censored_records_that_count_as_quantified_are_said():
    """The mask that leaves doses out does not know of censoring."""
    rows = {"times": [0.0, 1.0], "observations": {"dv": [3.0, 2.0]}}
    pop = hx.Population.from_subjects([hx.Subject(k, None, **rows) for k in range(3)])
    frame = pop.to_frame().assign(CENS=lambda table: (table["TIME"] == 1).astype(int))
    censored = hx.read_nonmem(frame)

    def raw(pop):
        level = numpyro.param("level", 0.5)
        with numpyro.plate("subject", pop.n_subjects, dim=-2), numpyro.plate("time", pop.n_records, dim=-1):
            with handlers.mask(mask=pop.mask["dv"]):
                numpyro.sample("y", dist.Normal(level, 1.0), obs=pop.dv["dv"])

    with pytest.warns(hx.HieraxWarning, match=r"'y' counts 3 censored records of 'dv' as if they had been quantified"):
        hx.check(raw, censored, show=False)
    # Warnings are errors in these tests.
    hx.check(raw, pop, show=False)
    hx.check(counts(lambda x: dist.Normal(x, 1.0)), censored, show=False)


def test_censored_answers_are_refused():
    frame = {"ID": [1, 1], "TIME": [0, 1], "DV": [1, 1], "CENS": [0, 1]}
    with pytest.raises(ValueError, match="Bernoulli.* are censored, but it has no distribution function"):
        hx.check(counts(lambda x: dist.Bernoulli(logits=x)), hx.read_nonmem(pd.DataFrame(frame)), show=False)
