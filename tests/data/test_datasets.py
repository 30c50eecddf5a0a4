"""The data sets' records follow their conversion rules, and the examples in their docstrings run."""

import doctest

import numpy as np
import pytest

import hierax as hx
from hierax.data import datasets


def run_examples(function):
    names = {}
    for example in doctest.DocTestParser().get_examples(function.__doc__):
        exec(example.source, names)
    return names


@pytest.mark.parametrize(
    ("name", "subjects", "observations", "doses"),
    [("quinidine", 136, 361, 1028), ("remifentanil", 65, 1992, 628), ("soybean", 48, 412, 0), ("loblolly", 14, 84, 0)],
)
def test_sizes(name, subjects, observations, doses):
    frame = datasets.load(name)
    pop = hx.read_nonmem(frame)
    assert (len(pop), pop.n_observations) == (subjects, observations)
    assert ("EVID" in frame.columns and int(frame["EVID"].eq(1).sum())) == doses


def test_quinidine_goes_on_until_the_next_record():
    frame = datasets.load("quinidine")
    # At steady state every 6 h at 0 h, next record at 7.25 h: one more dose, at 6 h.
    first = frame[frame["ID"] == 6].iloc[0]
    assert (first["SS"], first["II"], first["ADDL"]) == (1, 6.0, 1)
    # Every 6 h at 138 h, next dose record at 145.5 h.
    second = frame[(frame["ID"] == 1) & (frame["TIME"] == 138)].iloc[0]
    assert (second["SS"], second["II"], second["ADDL"]) == (1, 6.0, 1)
    # Every 8 h, and no record after: nothing more is known.
    last = frame[(frame["ID"] == 3) & (frame["TIME"] == 4073)].iloc[0]
    assert (last["SS"], last["ADDL"]) == (1, 0)
    assert frame["EVID"].value_counts().to_dict() == {1: 1028, 0: 361, 2: 82}


def test_remifentanil_has_a_sample_before_each_piece_of_infusion():
    frame = datasets.load("remifentanil")
    one = frame[frame["ID"] == 1]
    assert one["TIME"].head(5).tolist() == [0.0, 1.5, 1.5, 2.0, 2.0]
    assert one["EVID"].head(5).tolist() == [1, 0, 1, 0, 1]
    pop = hx.read_nonmem(frame)
    # The pieces follow each other without gaps: each ends where the next one of the subject begins.
    time, duration, mask = pop.events.time[0], pop.events.duration[0], pop.events.mask[0]
    np.testing.assert_allclose((time + duration)[mask][:-1], time[mask][1:], atol=1e-9)


def test_quinidine_needs_the_interpolation_named():
    with pytest.raises(hx.DataError, match=r"column WT.*the covariate changes within a subject"):
        hx.read_nonmem(datasets.load("quinidine"), covariates=["WT"])


@pytest.mark.parametrize("function", [datasets.loblolly, datasets.soybean, datasets.remifentanil])
def test_examples(function):
    names = run_examples(function)
    assert len(names["figure"].axes) == 1
    if "fit" in names:
        assert names["fit"].result is hx.Result.converged


@pytest.mark.slow
def test_example_of_quinidine():
    fit = run_examples(datasets.quinidine)["fit"]
    assert fit.result is hx.Result.converged
    # Clearance falls as the glycoprotein that binds quinidine rises (Verme et al. 1992).
    assert fit.params["glyco"] < -4 * float(fit.covariance().se["glyco"])


@pytest.mark.slow
def test_remifentanil_by_foce_from_textbook_starts():
    """Minto et al. (1997), simple model without covariates: CL 2.46 L/min, V1 4.98 L."""
    names = run_examples(datasets.remifentanil)
    fit = hx.fit(names["model"], names["pop"], hx.FOCE(), progress=False)
    assert fit.result is hx.Result.converged
    cl, v1 = fit.params["theta"][:2]
    assert cl == pytest.approx(2.46, rel=0.1)
    assert v1 == pytest.approx(4.98, rel=0.1)
