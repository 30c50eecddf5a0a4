import numpy as np
import pandas as pd
import pytest

import hierax as hx


def frame(**columns):
    base = {"ID": [1, 1, 1, 2, 2, 2], "TIME": [0.0, 1, 2] * 2, "DV": [np.nan, 5, 3] * 2, "AMT": [100.0, 0, 0] * 2}
    return pd.DataFrame(base | columns)


def test_categories_keep_codes_and_labels():
    pop = hx.read_nonmem(frame(SEX=["M"] * 3 + ["F"] * 3), covariates=["SEX"])
    assert pop.covariates["SEX"].tolist() == [[1.0], [0.0]]
    assert pop.labels["SEX"] == ("F", "M")
    assert pop.to_frame()["SEX"].tolist() == ["M"] * 3 + ["F"] * 3


def test_numbers_may_be_categories():
    pop = hx.read_nonmem(frame(RACE=[10.0] * 3 + [2.0] * 3), categorical=["RACE"])
    assert pop.labels["RACE"] == (2, 10)
    assert pop.covariates["RACE"].tolist() == [[1.0], [0.0]]
    assert pop.to_frame()["RACE"].tolist() == [10] * 3 + [2] * 3


def test_vectors_are_one_a_subject():
    data = frame(E1=[1.0] * 3 + [4.0] * 3, E2=[2.0] * 3 + [5.0] * 3)
    pop = hx.read_nonmem(data, vectors={"embedding": ["E1", "E2"]})
    np.testing.assert_array_equal(pop.covariates["embedding"], [[[1.0, 2.0]], [[4.0, 5.0]]])
    again = hx.read_nonmem(pop.to_frame(), vectors={"embedding": ["embedding_1", "embedding_2"]})
    np.testing.assert_array_equal(pop.covariates["embedding"], again.covariates["embedding"])
    assert pop[1].covariates["embedding"].shape == (1, 1, 2)


@pytest.mark.parametrize(
    ("policy", "filled"),
    [
        ("carry", [60.0, 60, 70, 80, 80, 80]),
        ("median", [60.0, 60, 70, 80, 80, 80]),
        (75.0, [60.0, 75, 70, 75, 80, 80]),
        ({"WT": 1.0}, [60.0, 1, 70, 1, 80, 80]),
    ],
)
def test_policies_for_missing_values(policy, filled):
    data = frame(WT=[60.0, np.nan, 70, np.nan, 80, 80])
    pop = hx.read_nonmem(data, covariates=["WT"], interpolation="locf", missing=policy)
    assert pop.covariates["WT"].ravel().tolist() == filled


def test_a_subject_without_any_value_is_not_carried_but_may_be_given_one():
    data = frame(WT=[60.0] * 3 + [np.nan] * 3, SEX=["F"] * 3 + [None] * 3)
    with pytest.raises(hx.DataError, match="the covariate is missing here") as caught:
        hx.read_nonmem(data, covariates=["WT"], missing="carry")
    assert set(caught.value.problems["id"]) == {2}
    pop = hx.read_nonmem(data, covariates=["WT"], categorical=["SEX"], missing={"WT": 65.0, "SEX": "unknown"})
    assert pop.covariates["WT"].tolist() == [[60.0], [65.0]]
    assert pop.labels["SEX"] == ("F", "unknown")


def test_the_median_counts_each_subject_once_and_the_mode_is_that_of_categories():
    parts = [frame(ID=i, WT=float(50 + i), SEX="F" if i < 5 else "M").iloc[:3] for i in range(1, 8)]
    lost = frame(ID=9, WT=np.nan, SEX=None).iloc[:3]
    pop = hx.read_nonmem(pd.concat([*parts, lost]), covariates=["WT", "SEX"], missing="median")
    assert pop.covariates["WT"][-1].tolist() == [54.0]
    assert pop.covariates["SEX"][-1].tolist() == [0.0]


@pytest.mark.parametrize("rule", ["locf", "nocb", "midpoint", "linear"])
def test_a_covariate_that_varies_keeps_the_rule_it_was_read_with(rule):
    pop = hx.read_nonmem(frame(CR=[1.0, 2, 3, 4, 4, 4]), covariates=["CR"], interpolation=rule)
    assert pop.interpolation == rule
    assert pop.covariates["CR"].tolist() == [[1.0, 2.0, 3.0], [4.0, 4.0, 4.0]]
    assert pop[1].interpolation == rule
