"""What is compiled for shapes that are no longer used is dropped, also where their results are kept."""

import gc

import numpy as np
import pytest
from linear_normal import linear, linear_population
from memory import MAPS, memory_maps

import hierax as hx
from hierax.program import read


def results(first, last):
    """Return evaluations of populations of so many subjects, each of another shape."""
    rng = np.random.default_rng(0)
    return [
        hx.evaluate(linear, linear_population(rng.normal(1.0, 1.0, (n, 3))), {}, hx.FO()) for n in range(first, last)
    ]


def maps():
    gc.collect()
    return memory_maps()


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


@pytest.mark.slow
@pytest.mark.skipif(not MAPS.exists(), reason="counts the memory maps of Linux")
def test_two_hundred_shapes(monkeypatch):
    kept = results(1, 201)
    # Of 65 530 that a process may have; 200 shapes would make 40 000 or more.
    assert maps() < 15_000
    assert len(kept) == 200
