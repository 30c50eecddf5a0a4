"""A compiled function serves the program that it was compiled for, and no other one."""

import functools
import itertools
import threading

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
import zoo

import hierax as hx
from hierax.program import read
from hierax.program.identity import fingerprint, lasting_parts, parts

POWER = 1.0
SETTINGS = {"power": 1.0}


@pytest.fixture(scope="module")
def pop():
    return zoo.wang_population()


def decline(pop, power):
    """Write sites that depend on a number from outside."""
    omega = numpyro.param("omega", 0.2, constraint=zoo.POSITIVE)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta = numpyro.sample("eta", dist.Normal(0.0, omega))
        hx.observe("dv", dist.Normal(10.0 * jnp.exp(-0.5 * power * jnp.exp(eta) * pop.times), 0.3), pop)


def plainly(power):
    return lambda pop: decline(pop, power)


def value(model, pop):
    """Return the log density at the program's start values, random effects of 0."""
    program = hx.program(model, pop)
    return float(np.sum(program.log_density(program.start, np.zeros((pop.n_subjects, 1)))))


@pytest.fixture(scope="module")
def expected(pop):
    return {power: by_hand(pop, power) for power in (1.0, 2.0, 3.0)}


def by_hand(pop, power):
    times, seen = np.asarray(pop.times), np.asarray(pop.dv["dv"])
    data = scipy.stats.norm(10.0 * np.exp(-0.5 * power * times), 0.3).logpdf(seen).sum()
    return data + len(pop) * scipy.stats.norm(0.0, 0.2).logpdf(0.0)


class Model:
    def __init__(self, power):
        self.power = power

    def program(self, pop):
        decline(pop, self.power)

    def __call__(self, pop):
        decline(pop, self.power)


class Child(Model):
    def program(self, pop):
        decline(pop, 1.0 + self.power)


def test_methods_of_other_instances_and_classes_are_other_models(pop, expected):
    for power in (1.0, 2.0, 1.0):
        assert value(Model(power).program, pop) == pytest.approx(expected[power], rel=1e-10)
        assert value(Model(power), pop) == pytest.approx(expected[power], rel=1e-10)
    assert value(Child(1.0).program, pop) == pytest.approx(expected[2.0], rel=1e-10)
    one = Model(1.0)
    value(one.program, pop)
    one.power = 3.0
    assert value(one.program, pop) == pytest.approx(expected[3.0], rel=1e-10)


def test_compiled_objectives_belong_to_one_program(pop):
    """Theirs is the objective of the same program written as a function of its own."""
    first, second = (hx.evaluate(Model(power).program, pop, {}, hx.FO()).ofv for power in (1.0, 2.0))
    assert second == pytest.approx(hx.evaluate(lambda pop: decline(pop, 2.0), pop, {}, hx.FO()).ofv, rel=1e-12)
    assert abs(first - second) > 1.0


def test_functions_with_the_attributes_of_another_one(pop, expected):
    first = plainly(1.0)

    @functools.wraps(first)
    def second(pop):
        decline(pop, 2.0)

    for model, power in ((first, 1.0), (second, 2.0), (functools.partial(decline, power=3.0), 3.0)):
        assert value(model, pop) == pytest.approx(expected[power], rel=1e-10)


def test_globals_closures_defaults_and_what_is_changed_in_place(pop, expected, monkeypatch):
    powers, held = np.array([1.0]), {"power": 1.0}

    def by_global(pop):
        decline(pop, POWER)

    def by_setting(pop):
        decline(pop, SETTINGS["power"])

    def by_array(pop):
        decline(pop, powers[0])

    def by_dict(pop):
        decline(pop, held["power"])

    def by_default(pop, power=1.0):
        decline(pop, power)

    models = (by_global, by_setting, by_array, by_dict, by_default)
    for model in models:
        assert value(model, pop) == pytest.approx(expected[1.0], rel=1e-10)
    monkeypatch.setitem(globals(), "POWER", 2.0)
    monkeypatch.setitem(SETTINGS, "power", 2.0)
    powers[0], held["power"], by_default.__defaults__ = 2.0, 2.0, (2.0,)
    for model in models:
        assert value(model, pop) == pytest.approx(expected[2.0], rel=1e-10)


def test_a_function_that_the_model_calls_is_part_of_it(pop, expected, monkeypatch):
    def model(pop):
        decline(pop, helper())  # noqa: F821

    monkeypatch.setitem(globals(), "helper", lambda: 1.0)
    assert value(model, pop) == pytest.approx(expected[1.0], rel=1e-10)
    monkeypatch.setitem(globals(), "helper", lambda: 3.0)
    assert value(model, pop) == pytest.approx(expected[3.0], rel=1e-10)


def test_what_a_fit_is_asked_after_its_model_has_changed_is_refused(pop):
    held = {"power": 1.0}

    def model(pop):
        decline(pop, held["power"])

    found = hx.evaluate(model, pop, {}, hx.NaivePooled())
    held["power"] = 2.0
    with pytest.raises(hx.ModelError, match=r"has changed since .*closure held.power"):
        found.table()


def test_the_same_program_written_again_is_compiled_once(pop):
    calls = []

    def counted(power):
        def model(pop):
            calls.append(power)
            decline(pop, power)

        return model

    hx.program(counted(1.0), pop)
    first = len(calls)
    hx.program(counted(1.0), pop)
    assert len(calls) == first
    hx.program(counted(1.5), pop)
    assert len(calls) > first


@pytest.mark.parametrize("kind", ["attribute", "list", "counter", "dict"])
def test_a_model_that_counts_its_calls_stays_what_it_is(pop, kind):
    seen, counter, table = [], itertools.count(), {}

    def model(pop):
        model.calls += 1
        if kind == "list":
            seen.append(len(seen))
        elif kind == "counter":
            next(counter)
        elif kind == "dict":
            table[len(table)] = str(pop.times.shape)
        decline(pop, 1.0)

    model.calls = 0
    hx.program(model, pop)
    first = model.calls
    hx.program(model, pop)
    assert model.calls == first


def test_parts_name_their_places():
    held = {"scale": np.array([1.0, 2.0])}

    def model(pop, bound=3):
        return held["scale"] * POWER

    found = parts(model)
    assert found["closure held.scale"] == "float64[2] [1.0, 2.0]"
    assert found["default 0"] == "int 3"
    assert found["global POWER"] == "float 1.0"


def test_what_cannot_be_looked_into_is_itself_alone():
    first, second = (item for item in [threading.Lock(), threading.Lock()])
    assert fingerprint({"a": first}) != fingerprint({"a": second})
    assert fingerprint([np.random.default_rng(1)]) == fingerprint([np.random.default_rng(1)])
    assert fingerprint([np.random.default_rng(1)]) != fingerprint([np.random.default_rng(2)])


def test_optimisers_differ_by_what_they_close_over():
    import optax

    assert lasting_parts(optax.adam(0.1)) != lasting_parts(optax.adam(0.01))
    assert lasting_parts(optax.adam(0.1)) == lasting_parts(optax.adam(0.1))


def test_programs_that_are_no_longer_used_are_dropped(pop, monkeypatch):
    monkeypatch.setattr(read, "KEPT", 2)
    read.forget_programs()
    first = hx.program(plainly(1.0), pop).program
    for power in (2.0, 3.0):
        hx.program(plainly(power), pop)
    assert hx.program(plainly(1.0), pop).program is not first
