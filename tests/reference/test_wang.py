"""Objectives at fixed parameters: Wang (2007), J Pharmacokinet Pharmacodyn 34:575, values by NONMEM and nlmixr2."""

import pytest
import zoo

import hierax as hx

CASES = [
    (zoo.wang_proportional, hx.FOCE(), 39.4576),
    (zoo.wang_proportional, hx.FOCE(interaction=False), 39.2067),
    (zoo.wang_proportional, hx.FO(), 39.2132),
    (zoo.wang_proportional, hx.AGQ(15), 39.3548),
    (zoo.wang_proportional, hx.AGQ(15, "full"), 39.3548),
    (zoo.wang_proportional, hx.Laplace(), 39.2268),
    (zoo.wang_additive, hx.FOCE(), -2.0588),
    (zoo.wang_additive, hx.FOCE(interaction=False), -2.0588),
    (zoo.wang_additive, hx.FO(), 0.0258),
    (zoo.wang_additive, hx.AGQ(15), -1.9896),
    (zoo.wang_additive, hx.Laplace(), -1.9361),
]


@pytest.mark.parametrize(("model", "estimator", "ofv"), CASES)
def test_objective(model, estimator, ofv):
    assert hx.evaluate(model, zoo.wang_population(), {}, estimator).ofv == pytest.approx(ofv, abs=1e-3)


def test_one_node_of_quadrature_is_laplace():
    pop = zoo.wang_population()
    one = hx.evaluate(zoo.wang_proportional, pop, {}, hx.AGQ(1, "full")).ofv
    assert one == pytest.approx(hx.evaluate(zoo.wang_proportional, pop, {}, hx.Laplace()).ofv, abs=1e-9)
