"""What is compiled for shapes that are no longer used is dropped, also where their results are kept."""

import collections
import gc
import itertools

import numpy as np
import pytest
from linear_normal import linear, linear_population
from memory import MAPS, memory_maps

import hierax as hx
from hierax.program import read

MANY_SHAPES = "ignore:One model was read for more than"


def results(first, last, bucket=False):
    """Return evaluations of populations of so many subjects, each of another shape."""
    rng = np.random.default_rng(0)
    pops = [linear_population(rng.normal(1.0, 1.0, (n, 3))) for n in range(first, last)]
    return [hx.evaluate(linear, pop.bucket() if bucket else pop, {}, hx.FO()) for pop in pops]


def maps():
    gc.collect()
    return memory_maps()


@pytest.mark.filterwarnings(MANY_SHAPES)
@pytest.mark.skipif(not MAPS.exists(), reason="counts the memory maps of Linux")
def test_maps_do_not_grow_with_shapes(monkeypatch):
    monkeypatch.setattr(read, "KEPT", 2)
    kept = results(40, 44)
    before = maps()
    kept += results(44, 50)
    # A shape leaves some 200 maps behind where nothing is dropped.
    assert maps() - before < 300
    # What was dropped is built again where a result is asked for more.
    assert np.isfinite(kept[0].table()["PRED"]).all()


def test_buckets_share_what_is_compiled():
    read.forget_programs()
    plain, in_buckets = results(41, 43), results(41, 49, bucket=True)
    # Forty-one to forty-eight subjects are one bucket.
    assert sum(map(len, read._programs.values())) == 3
    for one, other in zip(plain, in_buckets, strict=False):
        # The last bits depend on the order of summation alone.
        np.testing.assert_allclose(one.ofv, other.ofv, rtol=1e-13)


def test_many_shapes_are_said_once(monkeypatch):
    monkeypatch.setattr(read, "KEPT", 1)
    monkeypatch.setattr(read, "FORGET", 2)
    forgotten = []
    monkeypatch.setattr(read.jax, "clear_caches", lambda: forgotten.append(1))
    read.forget_programs()
    kept = results(40, 41)
    monkeypatch.setattr(read, "_dropped", collections.defaultdict(set))
    monkeypatch.setattr(read, "_drops", itertools.count(1))
    with pytest.warns(hx.HieraxWarning, match=r"more than 1 populations .* Give pop\.bucket\(\) instead of pop"):
        kept += results(41, 42)
    kept += results(42, 44)
    # Three programs were dropped by now, and JAX forgets after two.
    assert len(forgotten) == 1
    assert np.isfinite(kept[0].table()["PRED"]).all()


@pytest.mark.slow
@pytest.mark.filterwarnings(MANY_SHAPES)
@pytest.mark.skipif(not MAPS.exists(), reason="counts the memory maps of Linux")
def test_two_hundred_shapes():
    kept = results(1, 41)
    # By now as many programs are kept as ever will be. What other tests of this worker have left is counted in.
    before = maps()
    kept += results(41, 201)
    # 160 shapes would leave 32 000 or more behind; a process may have 65 530.
    assert maps() - before < 3_000
    assert len(kept) == 200
