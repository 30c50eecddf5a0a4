import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest

import hierax as hx

K = 0.2


def amounts(pop, **arguments):
    return np.asarray(hx.pk.one_compartment(pop, k=K, V=1.0, **arguments))


# -- Regimen -----------------------------------------------------------------------------------------------------


def test_a_regimen_is_a_table_of_dose_records():
    regimen = hx.Regimen(200) + hx.Regimen(100, time=12, interval=8, count=3, route=2, duration=2)
    table = regimen.to_frame()
    assert table["TIME"].tolist() == [0.0, 12.0]
    assert table["AMT"].tolist() == [200.0, 100.0]
    assert table["ADDL"].tolist() == [0, 2]
    assert table["II"].tolist() == [0.0, 8.0]
    assert table["RATE"].tolist() == [0.0, 50.0]
    assert table["CMT"].tolist() == [1, 2]


def test_shift_and_scale():
    regimen = hx.Regimen(100, rate=10.0, interval=6, count=2)
    assert regimen.shift(3.5).to_frame()["TIME"].tolist() == [3.5]
    twice = regimen.scale(2).to_frame()
    assert (twice["AMT"][0], twice["RATE"][0]) == (200.0, 20.0)
    # Joined courses come in the order of time.
    assert (regimen.shift(5) + regimen).to_frame()["TIME"].tolist() == [0.0, 5.0]


def test_codes_of_steady_states_resets_and_modelled_inputs():
    def row(**items):
        return hx.Regimen(**items).to_frame().iloc[0]

    assert row(amount=10, steady=1, interval=12)["SS"] == 1
    assert row(amount=10, steady=1, interval=12)["II"] == 12
    assert row(amount=10, rate="modelled")["RATE"] == -1
    assert row(amount=10, duration="modelled")["RATE"] == -2
    assert row(amount=10, reset=True)["EVID"] == 4
    assert row(reset=True)["EVID"] == 3


@pytest.mark.parametrize(
    ("items", "text"),
    [
        (dict(amount=1, rate=1, duration=1), "a rate or a duration, not both"),
        (dict(amount=1, count=0), "count=0 must be a whole number of 1 or more"),
        (dict(amount=1, count=3), "count=3 doses need the time between them"),
        (dict(amount=1, duration=0), "duration=0 must be above 0, because it is the duration of an infusion"),
    ],
)
def test_regimens_that_make_no_sense(items, text):
    with pytest.raises(ValueError, match=text):
        hx.Regimen(**items)


# -- from_subjects -----------------------------------------------------------------------------------------------


def test_subjects_by_hand_are_the_same_as_a_table():
    subject = hx.Subject(
        "a", hx.Regimen(100) + hx.Regimen(50, time=4), [0, 4, 6], {"dv": [0.5, 2.0, np.nan]}, {"WT": 70.0, "SEX": "F"}
    )
    other = hx.Subject("b", hx.Regimen(80, rate=20), [1], {"dv": [3.0]}, {"WT": 80.0, "SEX": "M"})
    pop = hx.Population.from_subjects([subject, other])
    table = pd.DataFrame(
        {
            "ID": ["a"] * 5 + ["b"] * 2,
            "TIME": [0.0, 0, 4, 4, 6, 0, 1],
            "DV": [np.nan, 0.5, np.nan, 2, np.nan, np.nan, 3],
            "AMT": [100.0, 0, 50, 0, 0, 80, 0],
            "RATE": [0.0, 0, 0, 0, 0, 20, 0],
            "CMT": [1, 0, 1, 0, 0, 1, 0],
            "EVID": [1, 0, 1, 0, 0, 1, 0],
            "MDV": [1, 0, 1, 0, 1, 1, 0],
            "WT": [70.0] * 5 + [80.0] * 2,
            "SEX": ["F"] * 5 + ["M"] * 2,
        }
    )
    read = hx.read_nonmem(table, covariates=["WT", "SEX"])
    assert jax.tree.structure(pop) == jax.tree.structure(read)
    for one, two in zip(jax.tree.leaves(pop), jax.tree.leaves(read), strict=True):
        np.testing.assert_array_equal(one, two)
    assert (pop.ids, pop.labels) == (read.ids, read.labels)


def test_several_endpoints_by_hand():
    subject = hx.Subject(1, hx.Regimen(10), [1.0, 2.0, 3.0], {"cp": [1.0, 2.0, np.nan], "pd": [np.nan, 5.0, np.nan]})
    pop = hx.Population.from_subjects([subject])
    assert pop.times.tolist() == [[0.0, 1.0, 2.0, 2.0, 3.0]]
    assert pop.mask["cp"].tolist() == [[False, True, True, False, False]]
    assert pop.mask["pd"].tolist() == [[False, False, False, True, False]]
    again = hx.read_nonmem(pop.to_frame(), endpoints={"cp": 1, "pd": 2})
    np.testing.assert_array_equal(again.dv["pd"], pop.dv["pd"])


def test_covariates_that_vary_have_times_of_their_own():
    def wt(rule):
        subject = hx.Subject(1, hx.Regimen(10), [4.0, 12.0], covariates={"WT": ([0.0, 10.0], [50.0, 60.0])})
        pop = hx.Population.from_subjects([subject], interpolation=rule)
        return pop.times[0].tolist(), pop.covariates["WT"][0].tolist()

    assert wt("locf") == ([0.0, 0.0, 4.0, 10.0, 12.0], [50.0, 50.0, 50.0, 60.0, 60.0])
    assert wt("nocb") == ([0.0, 0.0, 4.0, 10.0, 12.0], [50.0, 50.0, 60.0, 60.0, 60.0])
    assert wt("linear") == ([0.0, 0.0, 4.0, 10.0, 12.0], [50.0, 50.0, 54.0, 60.0, 60.0])
    with pytest.raises(hx.DataError, match="the covariate changes within a subject"):
        wt(None)


def test_vectors_by_hand():
    subjects = [hx.Subject(i, None, [1.0], covariates={"e": np.array([i, 2.0 * i])}) for i in (1, 2)]
    pop = hx.Population.from_subjects(subjects)
    np.testing.assert_array_equal(pop.covariates["e"], [[[1.0, 2.0]], [[2.0, 4.0]]])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: hx.Population.from_subjects([]), "from_subjects got no subject"),
        (lambda: hx.Subject(3, None, [1.0, 2.0], {"dv": [1.0]}), r"Subject 3 has 2 times, but observations of 'dv'"),
        (lambda: hx.Population.from_subjects([hx.Subject(3)]), "Subject 3 has no dose and no time"),
        (
            lambda: hx.Population.from_subjects(
                [hx.Subject(1, None, [1], covariates={"WT": 1.0}), hx.Subject(2, None, [1])]
            ),
            r"Subject 2 has covariates \[\], but subject 1 has \['WT'\]",
        ),
    ],
)
def test_subjects_that_cannot_be_built(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_mistakes_in_a_regimen_are_told_as_in_a_table():
    with pytest.raises(hx.DataError, match="a dose needs a positive amount"):
        hx.Population.from_subjects([hx.Subject(1, hx.Regimen(0), [1.0])])
    with pytest.raises(hx.DataError, match="value 'gut': no compartment has this name"):
        hx.Population.from_subjects([hx.Subject(1, hx.Regimen(1, route="gut"), [1.0])])
    named = hx.Population.from_subjects([hx.Subject(1, hx.Regimen(1, route="gut"), [1.0])], compartments={"gut": 3})
    assert named.events.compartment.tolist() == [[3]]


# -- grids -------------------------------------------------------------------------------------------------------


def test_a_grid_has_every_combination():
    regimens = {"once": hx.Regimen(100), "twice": hx.Regimen(50, interval=12, count=2)}
    pop = hx.Population.from_grid(regimens, [1.0, 24.0], {"WT": [50.0, 70.0, 90.0], "AGE": 40.0}, n=2)
    assert len(pop) == 12
    assert pop.covariates["WT"].ravel().tolist() == [50, 50, 70, 70, 90, 90] * 2
    assert [pop.labels["REGIMEN"][int(code)] for code in pop.covariates["REGIMEN"].ravel()] == ["once"] * 6 + [
        "twice"
    ] * 6
    assert pop.n_observations == 0
    expected = [100 * np.exp(-K * 24), 50 * (np.exp(-K * 24) + np.exp(-K * 12))]
    np.testing.assert_allclose(amounts(pop)[[0, -1], -1], expected)


# -- other doses, other times ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phenobarb():
    return hx.read_nonmem(hx.datasets.load("phenobarb"), covariates=["WT"])


def test_with_regimen_replaces_the_doses(phenobarb):
    regimen = hx.Regimen(30, interval=12, count=4)
    pop = phenobarb.with_regimen(regimen)
    assert pop.ids == phenobarb.ids
    assert pop.events.time.tolist() == [[0.0, 12.0, 24.0, 36.0]] * 59
    assert pop.n_observations == 0
    np.testing.assert_array_equal(pop.covariates["WT"], phenobarb.covariates["WT"])
    kept = phenobarb.with_regimen(regimen, keep_data=True)
    assert kept.n_observations == 155
    assert kept.to_frame().query("EVID == 0")["DV"].tolist() == phenobarb.to_frame().query("EVID == 0")["DV"].tolist()
    by_id = phenobarb[:2].with_regimen({1: regimen, 2: regimen.scale(2)})
    assert by_id.events.amount[:, 0].tolist() == [30.0, 60.0]
    with pytest.raises(ValueError, match=r"no regimen for the IDs \[2\]"):
        phenobarb[:2].with_regimen({1: regimen})


def test_at_times_keeps_the_doses(phenobarb):
    pop = phenobarb.at_times([0.0, 5.0, 100.0])
    assert pop.ids == phenobarb.ids
    frame = pop.to_frame()
    assert frame.query("EVID == 0").groupby("ID")["TIME"].apply(list).map(tuple).unique().tolist() == [
        (0.0, 5.0, 100.0)
    ]
    assert frame["EVID"].eq(1).sum() == int(phenobarb.events.mask.sum())
    assert pop.n_observations == 0
    # Predictions at the times of the data are those of the data.
    first = phenobarb[:1]
    seen = first.mask["dv"][0]
    again = first.at_times(first.times[0][seen])
    new = np.asarray(again.records["evid"])[0] == 0
    np.testing.assert_allclose(amounts(again)[0][new], amounts(first)[0][seen], rtol=1e-12)


def test_at_times_by_subject_and_wrong_shapes(phenobarb):
    pop = phenobarb[:2].at_times([[1.0, 2.0], [3.0, 4.0]])
    rows = pop.to_frame().query("EVID == 0").groupby("ID")["TIME"].apply(list).tolist()
    assert rows == [[1.0, 2.0], [3.0, 4.0]]
    with pytest.raises(ValueError, match=r"times of shape \(3, 1\)"):
        phenobarb[:2].at_times(np.ones((3, 1)))


@pytest.mark.parametrize("rule", ["locf", "nocb", "midpoint", "linear"])
def test_at_times_keeps_the_records_at_which_covariates_change(rule):
    frame = pd.DataFrame(
        {
            "ID": 1,
            "TIME": [0.0, 4, 8],
            "DV": [np.nan, 1, 2],
            "AMT": [9.0, 0, 0],
            "CR": [1.0, 2.0, 4.0],
            "OCC": [1, 1, 2],
        }
    )
    pop = hx.read_nonmem(frame, covariates=["CR"], interpolation=rule).at_times([1.0, 5.0, 8.0])
    assert pop.times.tolist() == [[0.0, 1.0, 4.0, 5.0, 8.0, 8.0]]
    expected = {"locf": [1, 1, 2, 2, 4, 4], "nocb": [1, 2, 2, 4, 4, 4], "midpoint": [1, 1, 2, 2, 4, 4]}
    expected["linear"] = [1, 1.25, 2, 2.5, 4, 4]
    assert pop.covariates["CR"].tolist() == [expected[rule]]
    assert pop.n_occasions == 2
    assert pop.occasion[0, [0, 4]].tolist() == [0, 1]


def test_at_times_with_categories_that_vary_and_subjects_of_different_lengths():
    frame = pd.DataFrame(
        {
            "ID": ["a"] * 4 + ["b"] * 2,
            "TIME": [0.0, 4, 8, 9, 1, 6],
            "DV": [np.nan, 1, 2, 3, np.nan, 4],
            "AMT": [9.0, 0, 0, 0, 5, 0],
            "DIET": ["fed", "fed", "fasted", "fasted", "fasted", "fasted"],
            "SEX": ["F"] * 4 + ["M"] * 2,
        }
    )
    pop = hx.read_nonmem(frame, covariates=["DIET", "SEX"], interpolation="locf").at_times([2.0, 8.5])
    table = pop.to_frame()
    assert table["ID"].tolist() == ["a"] * 6 + ["b"] * 4
    assert table["TIME"].tolist() == [0, 2, 4, 8, 8.5, 9, 1, 2, 6, 8.5]
    assert table["DIET"].tolist() == ["fed"] * 3 + ["fasted"] * 7
    assert table["SEX"].tolist() == ["F"] * 6 + ["M"] * 4
    # Before a subject's first record, its first values hold.
    early = hx.read_nonmem(frame, covariates=["DIET"], interpolation="locf").at_times([-1.0]).to_frame()
    assert early.query("TIME == -1")["DIET"].tolist() == ["fed", "fasted"]


def test_at_times_goes_to_the_last_part_of_a_history_with_resets():
    frame = pd.DataFrame(
        {"ID": 1, "TIME": [0.0, 2, 0, 3], "DV": [np.nan, 1, np.nan, 2], "AMT": [100.0, 0, 50, 0], "EVID": [1, 0, 4, 0]}
    )
    pop = hx.read_nonmem(frame).at_times([1.0])
    assert pop.times.tolist() == [[0.0, 0.0, 1.0]]
    np.testing.assert_allclose(amounts(pop)[0, -1], 50 * np.exp(-K))
    with pytest.raises(ValueError, match="TIME runs backwards at a reset of subject 1"):
        hx.read_nonmem(frame.assign(TIME=[0.0, 2, 0, 1])).with_regimen(hx.Regimen(1))


def test_extra_arrays_vectors_and_names_survive(phenobarb):
    pop = phenobarb[:3].with_data(image=np.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(pop.at_times([1.0]).data["image"], pop.data["image"][:3])
    subjects = [hx.Subject(i, hx.Regimen(1, route="gut"), [1.0], covariates={"e": np.ones(2) * i}) for i in (1, 2)]
    named = hx.Population.from_subjects(subjects, compartments={"gut": 1}).at_times([2.0])
    assert named.compartment_names == (("gut", 1),)
    assert named.covariates["e"].shape == (2, 1, 2)


# -- simulate, then fit ------------------------------------------------------------------------------------------


def model(pop):
    k = numpyro.param("k", 0.2, constraint=dist.constraints.positive)
    omega = numpyro.param("omega", 0.3, constraint=dist.constraints.positive)
    sigma = numpyro.param("sigma", 0.1, constraint=dist.constraints.positive)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, omega))
        conc = hx.pk.one_compartment(pop, k=k * jnp.exp(eta), V=1.0)
        hx.observe("dv", dist.LogNormal(jnp.log(conc), sigma), pop)


def test_a_design_is_simulated_and_its_simulation_fitted():
    design = hx.Population.from_grid(hx.Regimen(100, interval=12, count=2), [1.0, 6, 13, 20], n=40)
    drawn = hx.simulate(model, design, n=1, seed=3)
    data = design.with_dv(dv=drawn["dv"].values[0])
    # Doses are no observations, whatever was drawn at their records.
    assert data.n_observations == 160
    assert hx.read_nonmem(data.to_frame()).n_observations == 160
    fit = hx.fit(model, data, hx.FOCE(), progress=False)
    se = fit.covariance().se
    assert abs(fit.params["k"] - 0.2) < 4 * float(se["k"])
    assert abs(fit.params["omega"] - 0.3) < 4 * float(se["omega"])


def test_with_dv_refuses_what_does_not_fit(phenobarb):
    with pytest.raises(ValueError, match=r"with_dv names \['cp'\], which are not endpoints"):
        phenobarb.with_dv(cp=phenobarb.dv["dv"])
    with pytest.raises(ValueError, match=r"with_dv\(dv=...\) has shape \(2, 2\)"):
        phenobarb.with_dv(dv=np.ones((2, 2)))


def test_after_a_reset_that_turns_the_clock_back_its_own_covariates_hold():
    frame = pd.DataFrame(
        {
            "ID": 1,
            "TIME": [0.0, 10, 20, 30, 0, 5],
            "DV": [np.nan, 1, 1, 2, np.nan, 1],
            "AMT": [100.0, 0, 0, 0, 100, 0],
            "EVID": [1, 0, 0, 0, 4, 0],
            "WT": [50.0, 55, 60, 65, 90, 95],
        }
    )
    expected = {"locf": [90, 95, 95], "nocb": [95, 95, 95], "linear": [91, 95, 95], "midpoint": [90, 95, 95]}
    for rule, weights in expected.items():
        table = hx.read_nonmem(frame, covariates=["WT"], interpolation=rule).at_times([1.0, 6, 11]).to_frame()
        assert table.query("EVID == 0")["WT"].tolist() == weights, rule


def test_with_regimen_keeps_the_records_at_which_covariates_change():
    frame = pd.DataFrame(
        {"ID": 1, "TIME": [0.0, 4, 8], "DV": [np.nan, np.nan, 2], "AMT": [9.0, 9, 0], "CR": [1.0, 2, 3]}
    )
    pop = hx.read_nonmem(frame, covariates=["CR"], interpolation="locf").with_regimen(hx.Regimen(5, time=6))
    table = pop.to_frame()
    assert table["TIME"].tolist() == [0, 4, 6, 8]
    assert table["EVID"].tolist() == [2, 2, 1, 0]
    assert table["CR"].tolist() == [1, 2, 2, 3]
    with pytest.raises(ValueError, match="with_regimen takes a Regimen"):
        pop.with_regimen(None)


def test_new_data_are_not_censored_and_the_others_stay_censored():
    frame = pd.DataFrame(
        {"ID": 1, "TIME": [0.0, 1, 2, 3], "DV": [np.nan, 5, 4, 1], "AMT": [9.0, 0, 0, 0], "CENS": [0, 1, 1, 0]}
    ).assign(LIMIT=[np.nan, np.nan, 0.1, np.nan], CMT=[1, 2, 3, 3])
    pop = hx.read_nonmem(frame, endpoints={"cp": 2, "pd": 3})
    assert pop.censoring == (("cp", "left"), ("pd", "interval"))
    new = pop.with_dv(cp=np.where(pop.mask["cp"], 9.0, np.nan))
    assert new.censoring == (("pd", "interval"),)
    again = hx.read_nonmem(new.to_frame(), endpoints={"cp": 2, "pd": 3})
    assert again.censoring == new.censoring
    # An open end stays open under another regimen.
    kept = pop.with_regimen(hx.Regimen(1), keep_data=True)
    assert kept.censoring == pop.censoring
    assert kept.limit["cp"][kept.mask["cp"]].tolist() == [-np.inf]


def test_endpoints_told_apart_by_cmt_keep_their_data_in_the_table():
    frame = pd.DataFrame({"ID": 1, "TIME": [0.0, 1, 2], "DV": [np.nan, 5, 4], "AMT": [9.0, 0, 0], "CMT": [1, 2, 3]})
    pop = hx.read_nonmem(frame, endpoints={"cp": 2, "pd": 3})
    swapped = pop.with_dv(cp=np.array([[np.nan, np.nan, 1.0]]), pd=np.array([[np.nan, 7.0, np.nan]]))
    again = hx.read_nonmem(swapped.to_frame(), endpoints={"cp": 2, "pd": 3})
    assert again.dv["cp"].tolist() == [[0.0, 0.0, 1.0]]
    assert again.dv["pd"].tolist() == [[0.0, 7.0, 0.0]]


def test_covariates_over_time_in_any_order_and_of_any_kind():
    def diet(rule):
        covariates = {"W": ([2.0, 0.0], [2.0, 1.0]), "FED": ([0.0, 1.5], ["fed", "fasted"])}
        subject = hx.Subject(1, hx.Regimen(1), [1.0, 3.0], covariates=covariates)
        return hx.Population.from_subjects([subject], interpolation=rule).to_frame()

    table = diet("locf")
    assert table["TIME"].tolist() == [0, 0, 1, 1.5, 2, 3]
    assert table["W"].tolist() == [1, 1, 1, 1, 2, 2]
    assert table["FED"].tolist() == ["fed"] * 3 + ["fasted"] * 3
    assert diet("linear")["W"].tolist() == [1, 1, 1.5, 1.75, 2, 2]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([{"W": ([0.0, 1], [1.0])}], r"Covariate W of subject 0 is \(times, values\) of shapes \(2,\) and \(1,\)"),
        ([{"W": (1.0, 2.0)}], r"write a vector as an array"),
        (
            [{"W": np.ones(2)}, {"W": np.ones(3)}],
            r"Covariate W has shape \(3,\) for subject 1 and \(2,\) for subject 0",
        ),
        ([{"W": 1.0}, {"W": np.ones(3)}], r"Covariate W has shape \(3,\) for subject 1 and \(\) for subject 0"),
        ([{"RATE": 1.0}], r"\['RATE'\] cannot be covariates"),
    ],
)
def test_covariates_by_hand_that_do_not_fit(values, text):
    with pytest.raises(ValueError, match=text):
        hx.Population.from_subjects([hx.Subject(i, None, [1.0], covariates=v) for i, v in enumerate(values)])
