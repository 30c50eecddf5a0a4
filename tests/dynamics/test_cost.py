"""The closed forms cost records + doses, not records × doses, and are traced once for other values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hierax as hx


def design(records, doses, n=3):
    return hx.Population.from_grid(hx.Regimen(100, interval=12, count=doses), np.linspace(0, 999, records), n=n)


def largest_array(pop):
    """Return the number of elements of the largest array that a model makes, inner loops included."""

    def run(pop, ka):
        return hx.pk.two_compartment(pop, CL=4.0, V1=20.0, Q=3.0, V2=50.0, ka=ka)

    def sizes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (np.prod(out.aval.shape) for out in equation.outvars)
            for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")):
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    yield from sizes(inner)

    return max(sizes(jax.make_jaxpr(run)(pop, jnp.full((pop.n_subjects, 1), 0.8)).jaxpr))


def test_no_array_of_records_times_doses():
    small, large = largest_array(design(50, 50)), largest_array(design(200, 200))
    # Four times the records and doses: four times the largest array, up to padding; not sixteen times.
    assert large <= 4.2 * small
    # And no subject × record × dose anywhere.
    assert large < 3 * 200 * 200


def test_few_doses_take_the_short_way():
    pop = design(30, 2)
    assert largest_array(pop) >= 3 * 30 * 2


@pytest.mark.parametrize("options", [{}, {"interpolation": "nocb"}])
def test_other_values_do_not_trace_again(options):
    traces = []

    @jax.jit
    def run(pop, k):
        traces.append(1)
        return hx.pk.one_compartment(pop, k=k, V=1.0)

    def population(amount, interval, shift):
        regimen = hx.Regimen(amount, interval=interval, count=3, time=shift)
        regimen = regimen + hx.Regimen(50, time=40, steady=1, interval=8)
        subjects = [hx.Subject(i, regimen, [1.0, 20 + shift, 60]) for i in range(3)]
        return hx.Population.from_subjects(subjects, **options)

    k = jnp.full((3, population(1, 1, 0).n_records if options else 1), 0.1)
    first = run(population(100, 6, 0), k)
    second = run(population(70, 9, 2), 2 * k)
    assert len(traces) == 1
    assert not np.allclose(first, second)
