"""Which cells of ID name one subject; labels and ids inside models."""

import jax
import numpy as np
import pandas as pd
import pytest

import hierax as hx
from hierax.data.named import warn_of_other_labels


def parts(infusion_times, *ids):
    """One subject whose rows have these ids in turn."""
    return infusion_times(ID=pd.Series([ids[row * len(ids) // 4] for row in range(4)], dtype=object))


@pytest.mark.parametrize(
    ("ids", "code", "expected"),
    [
        (("S-01", "S-01 "), "id_blanks", ("S-01",)),
        (("S-01\u00a0", "S-01"), "id_blanks", ("S-01",)),
        ((1, 1.0), "id_spelling", (1,)),
        ((1, "1"), None, (1,)),
        (("1", "1.0"), "id_spelling", (1,)),
    ],
)
def test_ids_that_are_one_subject(infusion_times, ids, code, expected):
    data = parts(infusion_times, *ids)
    if code is None:
        assert hx.read_nonmem(data).ids == expected
        return
    with pytest.warns(hx.DataWarning, match="is read as one subject") as caught:
        assert hx.read_nonmem(data).ids == expected
    assert set(caught[0].message.problems["code"]) == {code}


def test_ids_that_may_or_may_not_be_one_subject(infusion_times):
    with pytest.raises(
        hx.DataError, match=r"row 4, ID 1, column ID, value '1'; then row 5\): this ID and another are the same number"
    ):
        hx.read_nonmem(parts(infusion_times, "001", "1"))
    with pytest.warns(hx.DataWarning, match="differs from another one in capital letters"):
        assert hx.read_nonmem(pd.concat([infusion_times(ID="s1"), infusion_times(ID="S1")])).ids == ("s1", "S1")
    with pytest.raises(hx.DataError, match="more digits than a floating-point number holds"):
        hx.read_nonmem(infusion_times(ID=2.0**53))
    with pytest.raises(hx.DataError, match="ID inf, column ID, value inf"):
        hx.read_nonmem(infusion_times(ID=pd.Series([np.inf, "a", "a", "a"], dtype=object)))


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["001", "002"], (1, 2)),
        (["1", "2"], (1, 2)),
        (["12345678901234567", "12345678901234568"], (12345678901234567, 12345678901234568)),
        (["a ", " b"], ("a", "b")),
        (["1", "b"], ("1", "b")),
    ],
)
def test_ids_of_files(tmp_path, cells, expected):
    path = tmp_path / "data.csv"
    path.write_text("ID,TIME,DV\n" + "".join(f"{cell},{time},1\n" for cell in cells for time in (0, 1)))
    assert hx.read_nonmem(path).ids == expected
    path.write_text(path.read_text().replace("ID", "who"))
    assert hx.read_nonmem(path, columns={"ID": "who"}).ids == expected


def test_ids_of_files_that_are_one_number(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("ID,TIME,DV\n001,0,1\n1,1,1\n")
    with pytest.raises(hx.DataError, match="with and without zeros in front"):
        hx.read_nonmem(path)
    path.write_text("ID,TIME,DV\n1,0,1\n1.0,1,1\n2,0,1\n")
    with pytest.warns(hx.DataWarning, match="written in several ways"):
        assert hx.read_nonmem(path).ids == (1, 2)


def test_categories_are_shown_by_their_labels(infusion_times):
    data = infusion_times(SEX=["M", "M", "m", "m"])
    with pytest.raises(hx.DataError, match=r"value 'm': .*\(before, it is 'M': if 'M' and 'm' are one category, write"):
        hx.read_nonmem(data, covariates=["SEX"])
    two = pd.concat([infusion_times(SEX="M"), infusion_times(ID=2, SEX="m")])
    with pytest.warns(hx.DataWarning, match="differ only in capital letters or blanks, and are read as 2 categories"):
        hx.read_nonmem(two, covariates=["SEX"])


def test_categories_may_be_given_in_order(infusion_times):
    women = infusion_times(SEX="M")
    pop = hx.read_nonmem(women, categorical={"SEX": ["F", "M"]})
    assert (pop.labels["SEX"], pop.covariates["SEX"].item()) == (("F", "M"), 1.0)
    with pytest.raises(hx.DataError, match=r"value 'M'; .*\): this is none of the labels that were given: \['F'\]"):
        hx.read_nonmem(women, categorical={"SEX": ["F"]})
    with pytest.raises(ValueError, match="has a label twice"):
        hx.read_nonmem(women, categorical={"SEX": ["F", "F"]})


def test_codes_of_a_fit_and_of_new_subjects(infusion_times):
    """Women alone have code 0, which is a man's in data with both, unless the labels are given."""
    old = population(infusion_times, sexes="MFMF").labels
    assert old["SEX"] == ("F", "M")
    one = hx.Subject(1, times=[1.0], covariates={"SEX": "M", "WT": 70.0})
    alone = hx.Population.from_subjects([one])
    assert (alone.labels["SEX"], alone.covariates["SEX"].item()) == (("M",), 0.0)
    like = hx.Population.from_subjects([one], categorical=old)
    assert (like.labels["SEX"], like.covariates["SEX"].item()) == (("F", "M"), 1.0)
    grid = hx.Population.from_grid(hx.Regimen(1.0), [1.0], {"SEX": ["M"]}, categorical={"SEX": ["F", "M"]})
    assert grid.covariates["SEX"].item() == 1.0
    with pytest.raises(ValueError, match=r"categorical= names \['RACE'\], which the subjects do not have"):
        hx.Population.from_subjects([one], categorical=["RACE"])
    full = population(infusion_times)
    with pytest.warns(
        hx.HieraxWarning, match=r"'SEX' has the labels \['F', 'M'\].*\['M'\].*categorical={'SEX': \['F', 'M'\]}"
    ):
        warn_of_other_labels(full, alone)
    warn_of_other_labels(full, like)
    warn_of_other_labels(full, hx.Population.from_subjects([hx.Subject(1, times=[1.0])]))


def population(infusion_times, ids=(1, 2, 3, 4), sexes="FMFM"):
    return hx.read_nonmem(
        pd.concat(
            [infusion_times(ID=one, SEX=sex, WT=60.0 + i) for i, (one, sex) in enumerate(zip(ids, sexes, strict=True))]
        ),
        covariates=["SEX", "WT"],
    )


def test_labels_are_known_inside_a_model_and_ids_say_why_they_are_not(infusion_times):
    pop = population(infusion_times)
    traces = []

    @jax.jit
    def men(pop):
        traces.append(repr(pop))
        with pytest.raises(KeyError, match=r"'WT' has no labels.*The categories are \['SEX'\]"):
            pop.labels["WT"]
        for use in (lambda: pop.ids[0], lambda: list(pop.ids), lambda: len(pop.ids), lambda: pop.ids.index(2)):
            with pytest.raises(ValueError, match=r"pop.ids is not known inside a model.*pop.with_data"):
                use()
        return pop.covariates["SEX"][:, 0] == pop.labels["SEX"].index("M")

    assert men(pop).tolist() == [False, True, False, True]
    # Parts, resampled subjects, other ids and other values of the same labels: the same compiled function.
    assert men(pop[[0, 0, 0, 2]]).tolist() == [False] * 4
    assert men(pop[np.array([3, 3, 1, 0])]).tolist() == [True, True, True, False]
    assert men(population(infusion_times, ids="abcd", sexes="MMFF")).tolist() == [True, True, False, False]
    assert len(traces) == 1
    assert "inside a compiled function (4 subjects" in traces[0]
    # Other labels are another model.
    assert men(population(infusion_times, sexes="MXXX")).tolist() == [True, False, False, False]
    assert len(traces) == 2
