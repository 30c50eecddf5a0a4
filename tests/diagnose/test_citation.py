"""What to cite: every key exists, and a fit names its method, its solver and its libraries."""

import re

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import zoo
from zoo import POSITIVE

import hierax as hx
from hierax.diagnose.references import REFERENCES
from hierax.infer.method import COMMANDS


def keys(text):
    return re.findall(r"^@\w+\{(\w+),", text, re.M)


def decline(pop):
    rate = numpyro.param("rate", 0.1, constraint=POSITIVE)
    sigma = numpyro.param("sigma", 1.0, constraint=POSITIVE)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        amount = hx.solve_ode(pop, lambda t, y, p: {"a": -p["k"] * y["a"]}, {"a": 10.0}, {"k": rate})
        hx.observe("dv", dist.Normal(jnp.asarray(amount["a"]), sigma), pop)


def test_every_method_is_described():
    for name, (kind, _) in COMMANDS.items():
        assert set(kind.references) <= set(REFERENCES), name
        # Naive pooling and MAP need none of their own.
        assert kind.references or name in ("pooled", "map", "joint-map")


def test_a_fit_names_method_objective_and_libraries(theo_fit):
    assert keys(hx.citation(theo_fit)) == [
        "hierax", "lindstrom1990", "wang2007", "numpyro", "jax", "arviz", "optimistix",
    ]  # fmt: skip
    entry = hx.citation(theo_fit).split("\n\n")[1]
    assert entry.startswith("@article{lindstrom1990,")
    assert "pages        = {673--687}" in entry
    # Every entry has as many braces that open as close.
    assert all(one.count("{") == one.count("}") for one in hx.citation(theo_fit).split("\n\n"))


def test_algorithms_of_their_own_and_solvers_too():
    pop = zoo.wang_population()
    by_saem = hx.fit(zoo.wang_additive, pop, hx.SAEM(exploratory=20, smoothing=20), progress=False, throw=False)
    assert keys(hx.citation(by_saem))[1:5] == ["delyon1999", "kuhn2005", "wang2007", "louis1982"]
    solved = hx.evaluate(decline, pop, {}, hx.NaivePooled())
    assert keys(hx.citation(solved))[1:3] == ["tsitouras2011", "diffrax"]
