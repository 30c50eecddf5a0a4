import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import hierax as hx
from hierax.data.padding import bucket_size

SETS = {
    "theophylline": ["WT"],
    "phenobarb": ["WT", "APGAR", "APGARIND"],
    "orange": [],
    "indometh": [],
    "sleepstudy": [],
    "orthodont": ["SEX"],
}


@pytest.mark.parametrize("name", SETS)
def test_to_frame_round_trip(name):
    pop = hx.read_nonmem(hx.datasets.load(name), covariates=SETS[name])
    again = hx.read_nonmem(pop.to_frame(), covariates=SETS[name])
    assert jax.tree.structure(pop) == jax.tree.structure(again)
    for one, other in zip(jax.tree.leaves(pop), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)
    assert pop.ids == again.ids
    assert pop.labels == again.labels


@pytest.mark.parametrize(
    ("name", "subjects", "observations"),
    [
        ("theophylline", 12, 132),
        ("phenobarb", 59, 155),
        ("orange", 5, 35),
        ("indometh", 6, 66),
        ("sleepstudy", 18, 180),
        ("orthodont", 27, 108),
    ],
)
def test_data_sets(name, subjects, observations):
    pop = hx.read_nonmem(hx.datasets.load(name))
    assert (len(pop), pop.n_observations) == (subjects, observations)


def test_theophylline_doses_stand_before_the_first_sample():
    pop = hx.read_nonmem(hx.datasets.load("theophylline"))
    assert pop.events.record.ravel().tolist() == [0] * 12
    assert pop.times[:, :2].tolist() == [[0.0, 0.0]] * 12
    np.testing.assert_allclose(pop.events.amount[0, 0], 4.02 * 79.6)


def test_it_is_a_pytree_of_arrays_without_ids(theo_pop):
    leaves, tree = jax.tree.flatten(theo_pop)
    assert all(isinstance(leaf, np.ndarray) for leaf in leaves)
    renamed = hx.read_nonmem(theo_pop.to_frame().assign(ID=lambda f: "s" + f["ID"].astype(str)), covariates=["WT"])
    assert renamed.ids != theo_pop.ids
    assert jax.tree.structure(renamed) == tree
    assert jax.tree.unflatten(tree, leaves).ids is None


def test_rows_ids_slices_masks_and_traced_rows(theo_pop):
    assert theo_pop[3].ids == (4,)
    assert theo_pop[-1].ids == (12,)
    assert theo_pop[2:4].ids == (3, 4)
    assert theo_pop[np.arange(12) > 9].ids == (11, 12)
    assert theo_pop.loc[[5, 2]].ids == (5, 2)
    assert theo_pop.loc[7].ids == (7,)
    with pytest.raises(KeyError, match=r"No subject has ID \[99\]"):
        theo_pop.loc[99]
    traced = jax.jit(lambda pop, rows: pop[rows].times)(theo_pop, jnp.array([4, 1]))
    np.testing.assert_array_equal(traced, theo_pop.times[[4, 1]])
    named = hx.read_nonmem(theo_pop.to_frame().assign(ID=lambda f: "s" + f["ID"].astype(str)))
    assert named["s3"].ids == ("s3",)
    assert named[["s3", "s1"]].ids == ("s3", "s1")


def test_subsets_are_padded_to_their_bucket_and_resamples_keep_their_size(theo_pop):
    assert [bucket_size(n) for n in (1, 4, 5, 8, 9, 11, 17, 100, 1200)] == [1, 4, 5, 8, 10, 12, 20, 112, 1280]
    subset = theo_pop[np.arange(11)]
    assert (len(subset), subset.n_subjects) == (11, 12)
    assert subset.subject_mask.tolist() == [True] * 11 + [False]
    assert subset.n_observations == 121
    resample = theo_pop[np.array([0] * 12)]
    assert (len(resample), resample.n_subjects) == (12, 12)
    assert theo_pop[np.tile(np.arange(12), 100)].n_subjects == 1200


def test_padding_of_every_axis(theo_pop):
    padded = theo_pop.pad(n_subjects=16, n_records=20, n_doses=3)
    assert padded.times.shape == (16, 20)
    assert padded.events.time.shape == (16, 3)
    assert padded.n_observations == 132
    assert np.isfinite(padded.times).all()
    assert len(padded) == 12
    bucketed = theo_pop.bucket()
    assert (bucketed.n_subjects, bucketed.n_records) == (12, 12)
    pop = hx.read_nonmem(hx.datasets.load("phenobarb"))
    bucketed = pop.bucket()
    assert bucketed.n_subjects == 64
    assert len(bucketed) == 59
    assert bucketed.to_frame().equals(pop.to_frame())


def test_extra_arrays_travel_by_subject(theo_pop):
    pop = theo_pop.with_data(image=np.arange(24.0).reshape(12, 2))
    np.testing.assert_array_equal(pop[5].data["image"], [[10.0, 11.0]])
    with pytest.raises(ValueError, match=r"with_data\(image=\.\.\.\) has shape \(3,\)"):
        theo_pop.with_data(image=np.zeros(3))


@pytest.mark.parametrize("column", ["DVID", "CMT"])
def test_round_trip_with_endpoints_in_any_order_occasions_and_resampled_ids(column):
    rows = [
        (i, float(t), 10.0 * e + t, e, o) for i in (1, 2) for o in (1, 3) for t in (2 * o, 2 * o + 1) for e in (1, 2)
    ]
    frame = pd.DataFrame(rows, columns=["ID", "TIME", "DV", column, "OCC"])
    endpoints = {"pca": 2, "cp": 1}
    pop = hx.read_nonmem(frame, endpoints=endpoints)
    again = hx.read_nonmem(pop.to_frame(), endpoints=endpoints)
    for one, other in zip(jax.tree.leaves(pop), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)
    assert sorted(pop.to_frame()["OCC"].unique()) == [1, 3]
    assert again.labels == pop.labels
    twice = pop[np.array([0, 0])].to_frame()
    assert twice["ID"].unique().tolist() == [1, "1#2"]
    assert len(hx.read_nonmem(twice, endpoints=endpoints)) == 2


def test_rows_inside_compiled_functions_and_masks_of_padded_length(theo_pop):
    rows = jnp.array([4, 1])
    np.testing.assert_array_equal(jax.jit(lambda r: theo_pop[r].times)(rows), theo_pop.times[[4, 1]])
    np.testing.assert_array_equal(jax.jit(lambda pop: pop[:2].times)(theo_pop), theo_pop.times[:2])
    assert jax.jit(lambda r: theo_pop[r].times)(jnp.array(3)).shape == (1, 12)
    padded = theo_pop[np.arange(11)]
    heavy = padded[padded.covariates["WT"][:, 0] > 75]
    assert len(heavy) == int((theo_pop.covariates["WT"][:11, 0] > 75).sum())
