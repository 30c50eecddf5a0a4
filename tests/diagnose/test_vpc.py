"""Visual predictive checks of censored and discrete data, and their bins."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest

import hierax as hx
from hierax.data.censoring import limits_of, with_drawn
from hierax.diagnose.bins import bin_numbers, nominal_times

POSITIVE = dist.constraints.positive
TIMES = np.array([1.0, 4.0, 12.0, 24.0, 48.0])
LLOQ = 0.4


def bolus(pop):
    cl = numpyro.param("cl", 3.0, constraint=POSITIVE)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, 0.4))
        conc = 100 / 30 * jnp.exp(-cl / 30 * jnp.exp(eta) * pop.times)
        hx.observe("dv", dist.LogNormal(jnp.log(conc), 0.2), pop)


def frame_of(values, lloq=None):
    n, records = values.shape
    frame = pd.DataFrame({"ID": np.repeat(np.arange(n) + 1, records), "TIME": np.tile(TIMES, n), "DV": values.ravel()})
    if lloq is not None:
        low = frame["DV"] < lloq
        frame = frame.assign(CENS=low.astype(int), DV=frame["DV"].where(~low, lloq))
    return frame


@pytest.fixture(scope="module")
def whole():
    """Data that the model itself made, nothing censored."""
    pop = hx.read_nonmem(frame_of(np.ones((150, len(TIMES)))))
    return hx.simulate(bolus, pop, seed=5)["dv"].to_numpy()[0]


@pytest.fixture(scope="module")
def censored(whole):
    pop = hx.read_nonmem(frame_of(whole, LLOQ))
    return hx.evaluate(bolus, pop, {}, hx.NaivePooled())


def test_a_true_model_looks_true_with_censored_data(censored, whole):
    """Simulated values that are not censored make it look wrong: observed 0.564 in a band of 0.136 to 0.244."""
    check = hx.vpc(censored, n=300, seed=1)
    there = check.table.dropna(subset=["observed"])
    inside = (there["observed"] >= there["lower"]) & (there["observed"] <= there["upper"])
    # 14 or 15 intervals at 90 %: fewer than 10 hits would be a 1 in 2 000 event.
    assert inside.sum() >= 10
    late = check.table[(check.table["time"] == 24) & (check.table["quantile"] == 0.1)].iloc[0]
    quantified = whole[:, 3][whole[:, 3] >= LLOQ]
    assert late["count"] == len(quantified)
    assert late["observed"] == pytest.approx(np.quantile(quantified, 0.1))
    assert late["lower"] > LLOQ
    # Left as they are drawn, 10 % of the simulated values lie below half the limit at 24 h.
    drawn = hx.simulate(censored, n=300, seed=1)["dv"].to_numpy()[:, :, 3]
    assert np.quantile(drawn, 0.1) < 0.5 * LLOQ


def test_the_censored_share_has_its_own_table_and_panel(censored, whole):
    check = hx.vpc(censored, n=300, seed=1)
    shares = check.censored.set_index("time")
    np.testing.assert_allclose(shares["observed"], (whole < LLOQ).mean(0))
    assert (shares["side"] == "below").all()
    # Another sample of the same process: all five shares within the 90 % bands is a matter of luck, four are not.
    assert ((shares["observed"] >= shares["lower"]) & (shares["observed"] <= shares["upper"])).sum() >= 4
    figure = hx.plot.vpc(check)
    assert [axis.get_ylabel() for axis in figure.axes] == ["dv", "share censored"]
    wrong = hx.evaluate(bolus, censored.pop, {"cl": 6.0}, hx.NaivePooled())
    seen = hx.vpc(wrong, n=100).censored.set_index("time").loc[24.0]
    assert seen["observed"] < seen["lower"]


def test_limits_that_differ_are_assumed_aloud(whole):
    frame = frame_of(whole, LLOQ)
    # Another assay in the first 50 subjects, with a limit of 0.8.
    other = (frame["ID"] <= 50) & (frame["DV"] < 0.8)
    frame = frame.assign(CENS=np.where(other, 1, frame["CENS"]), DV=frame["DV"].where(~other, 0.8))
    pop = hx.read_nonmem(frame)
    limits = limits_of(pop, "dv")
    assert (limits.lower[:50] == 0.8).mean() > 0.9
    assert (limits.lower[50:150] == 0.4).mean() > 0.9
    values, quantified = np.asarray(pop.dv["dv"]), np.asarray(pop.cens["dv"]) == 0
    assert (values >= limits.lower)[quantified & pop.mask["dv"]].all()
    fit = hx.evaluate(bolus, pop, {}, hx.NaivePooled())
    with pytest.warns(hx.HieraxWarning, match=r"2 lower limits \(0.4, 0.8; a quantified record is taken to have"):
        hx.vpc(fit, n=20)
    exact = np.where(np.arange(pop.n_subjects)[:, None] < 50, 0.8, 0.4)
    shares = hx.vpc(fit, n=200, lloq=exact).censored
    assert ((shares["observed"] >= shares["lower"]) & (shares["observed"] <= shares["upper"])).sum() >= 4


def test_right_censored_data(whole):
    frame = frame_of(whole)
    high = frame["DV"] > 3
    frame = frame.assign(CENS=-high.astype(int), DV=frame["DV"].where(~high, 3.0))
    check = hx.vpc(hx.evaluate(bolus, hx.read_nonmem(frame), {}, hx.NaivePooled()), n=100)
    first = check.censored[check.censored["time"] == 1].iloc[0]
    assert first["side"] == "above"
    assert first["lower"] <= first["observed"] <= first["upper"]
    assert check.table["upper"].max() <= 3


def test_drawn_data_are_censored_as_the_data_were(censored, whole):
    """What a parametric bootstrap fits again: codes, values and intervals."""
    pop = censored.pop
    drawn = np.where(np.asarray(pop.mask["dv"])[:, : whole.shape[1]], 1.0, np.nan)
    drawn[: len(whole)] = np.where(np.isfinite(drawn[: len(whole)]), whole, np.nan)
    again = with_drawn(pop, {"dv": drawn}, {"dv": limits_of(pop, "dv")})
    for name in ("dv", "cens", "limit"):
        np.testing.assert_array_equal(getattr(again, name)["dv"], getattr(pop, name)["dv"])
    assert again.censoring == pop.censoring
    pd.testing.assert_frame_equal(again.to_frame(), pop.to_frame())


def test_parametric_bootstrap_fits_censored_replicates(censored, monkeypatch):
    from hierax.analyse import bootstrap

    fit = hx.fit(bolus, censored.pop, hx.Laplace(), progress=False)
    seen = []

    def remember(model, pop, *args, **kwargs):
        seen.append(float((np.asarray(pop.cens["dv"]) == 1)[np.asarray(pop.mask["dv"])].mean()))
        return fit

    monkeypatch.setattr(bootstrap, "fit_again", remember)
    hx.bootstrap(fit, n=4, kind="parametric")
    share = float((np.asarray(fit.pop.cens["dv"]) == 1)[np.asarray(fit.pop.mask["dv"])].mean())
    assert 0.2 < share < 0.5
    np.testing.assert_allclose(seen, share, atol=0.06)


def test_parametric_bootstrap_refuses_data_that_it_cannot_draw(censored):
    def by_factor(pop):
        cl = numpyro.param("cl", 3.0, constraint=POSITIVE)
        with numpyro.plate("subject", pop.n_subjects, dim=-2):
            eta = numpyro.sample("eta", dist.Normal(0.0, 0.4))
            gap = pop.dv["dv"] - cl * jnp.exp(eta)
            numpyro.factor("data", -0.5 * jnp.where(pop.mask["dv"], gap, 0.0) ** 2)

    fit = hx.fit(by_factor, censored.pop, hx.Laplace(), progress=False)
    with pytest.raises(ValueError, match=r"cannot simulate \['dv'\]"):
        hx.bootstrap(fit, n=2, kind="parametric")


# -- discrete endpoints ----------------------------------------------------------------------------------------------


def discrete(pop):
    slope = numpyro.param("slope", 0.05)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, 0.5))
        hx.observe("binary", dist.Bernoulli(logits=eta - 1 + slope * pop.times), pop)
        hx.observe("count", dist.Poisson(6 * jnp.exp(eta) + 0 * pop.times), pop)
        hx.observe("grade", dist.OrderedLogistic(eta + slope * pop.times, jnp.array([-1.0, 0.0, 1.0])), pop)


ENDPOINTS = {"binary": 1, "count": 2, "grade": 3}


@pytest.fixture(scope="module")
def discrete_fit():
    n, times = 60, np.array([0.0, 12.0, 24.0])
    rows = [(i, t, 0.0, k) for i in range(n) for t in times for k in (1, 2, 3)]
    design = pd.DataFrame(rows, columns=["ID", "TIME", "DV", "DVID"])
    pop = hx.read_nonmem(design, endpoints=ENDPOINTS)
    drawn = hx.simulate(discrete, pop, seed=3)
    values = {name: drawn[name].to_numpy()[0] for name in ENDPOINTS}
    full = {name: np.where(np.asarray(pop.mask[name])[:n], value, np.nan) for name, value in values.items()}
    return hx.evaluate(discrete, pop.with_dv(**full), {}, hx.NaivePooled())


@pytest.mark.parametrize(("endpoint", "labels"), [("binary", ["0", "1"]), ("grade", ["0", "1", "2", "3"])])
def test_categories_get_proportions(discrete_fit, endpoint, labels):
    check = hx.vpc(discrete_fit, endpoint=endpoint, n=200)
    assert check.kind == "proportions"
    assert sorted(check.table["category"].unique()) == labels
    np.testing.assert_allclose(check.table.groupby("time")["observed"].sum(), 1.0)
    inside = (check.table["observed"] >= check.table["lower"]) & (check.table["observed"] <= check.table["upper"])
    assert inside.mean() >= 0.7
    first = check.table[(check.table["time"] == 0) & (check.table["category"] == "0")].iloc[0]
    seen = np.asarray(discrete_fit.pop.mask[endpoint]) & (np.asarray(discrete_fit.pop.times) == 0)
    assert first["observed"] == pytest.approx(np.mean(np.asarray(discrete_fit.pop.dv[endpoint])[seen] == 0))
    assert len([axis for axis in hx.plot.vpc(check).axes if axis.get_visible()]) == len(labels)


def test_many_counts_get_groups(discrete_fit):
    check = hx.vpc(discrete_fit, endpoint="count", n=200)
    labels = list(dict.fromkeys(check.table["category"]))
    assert 3 <= len(labels) <= 5
    assert labels[0].startswith("0-")
    assert labels[-1].endswith(" or more")
    np.testing.assert_allclose(check.table.groupby("time")["observed"].sum(), 1.0)
    wrong = hx.evaluate(discrete, discrete_fit.pop, {"slope": 0.3}, hx.NaivePooled())
    late = hx.vpc(wrong, endpoint="binary", n=100).table.query("time == 24 and category == '1'").iloc[0]
    assert late["observed"] < late["lower"]


# -- bins ------------------------------------------------------------------------------------------------------------


def test_few_nominal_times_are_the_bins():
    """Default bins were too wide: 12 and 24 h shared a bin, 48 and 72 h another."""
    nominal = np.array([0.5, 1, 2, 4, 8, 12, 24, 48, 72])
    times = np.tile(nominal, 20)
    place = bin_numbers(times, 9, None)
    assert len(np.unique(place)) == 9
    assert len({(p, t) for p, t in zip(place, times, strict=True)}) == 9
    # Two stray samples join the nearest nominal time.
    strayed = np.concatenate([times, [25.0, 47.0]])
    assert bin_numbers(strayed, 9, None)[-2:].tolist() == [6, 7]
    # Times of their own for every subject are no schedule.
    assert nominal_times(np.random.default_rng(0).uniform(0, 24, 100)) is None
    assert nominal_times(np.arange(5.0)) is None
