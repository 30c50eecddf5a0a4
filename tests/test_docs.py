"""Every public name says what it takes and gives, and shows it by an example that runs."""

import doctest
import inspect
import warnings

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import zoo

import hierax as hx

ROOMS = ("datasets", "guides", "nn", "pk", "plot")


def public():
    """Public functions and classes by the name that a user writes after ``hx.``."""
    found = {name: getattr(hx, name) for name in dir(hx) if not name.startswith("_")}
    out = {name: thing for name, thing in found.items() if callable(thing) and not inspect.ismodule(thing)}
    for room in ROOMS:
        module = found[room]
        for name in getattr(module, "__all__", [one for one in dir(module) if not one.startswith("_")]):
            thing = getattr(module, name)
            if callable(thing) and getattr(thing, "__module__", "").startswith("hierax"):
                out[f"{room}.{name}"] = thing
    return out


PUBLIC = public()
# The examples of data sets fit whole models: tests/data/test_datasets.py runs them.
ELSEWHERE = ("datasets.loblolly", "datasets.quinidine", "datasets.remifentanil", "datasets.soybean")


@pytest.fixture(scope="module")
def names():
    """What examples take for granted: a model, a population, and a fit of one to the other."""
    pop, model = zoo.wang_population(), zoo.wang_additive
    fit = hx.fit(model, pop, hx.FOCE(), progress=False)
    known = dict(hx=hx, np=np, pd=pd, jnp=jnp, numpyro=numpyro, dist=dist, pop=pop, model=model, fit=fit)
    yield known
    plt.close("all")


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example(name):
    assert ">>>" in (inspect.getdoc(PUBLIC[name]) or "")


@pytest.mark.parametrize("name", [name for name, thing in PUBLIC.items() if inspect.isfunction(thing)])
def test_functions_name_their_parameters_and_what_they_return(name):
    said, signature = inspect.getdoc(PUBLIC[name]), inspect.signature(PUBLIC[name])
    if signature.parameters:
        assert "\nParameters\n" in said
        section = said.split("\nParameters\n", 1)[1].split("\nReturns\n")[0]
        for parameter in signature.parameters.values():
            if parameter.kind is not parameter.VAR_KEYWORD:
                assert parameter.name in section, parameter.name
    assert "\nReturns\n" in said


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in ELSEWHERE])
def test_examples_run(name, names):
    found = doctest.DocTestFinder(recurse=False).find(PUBLIC[name], name, globs=dict(names))
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE, verbose=False)
    said = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one in found:
            runner.run(one, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)
