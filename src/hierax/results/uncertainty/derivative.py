"""Explanation of where a program is finite but its derivatives are not: parameter, subject, time, site and remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from hierax.data.sanitise import sanitise
from hierax.program.trace import site_log_prob
from hierax.results.place import describe_place

if TYPE_CHECKING:
    from hierax.results.fit import Evaluation

# The largest number of parameters, and of random effects, that are examined, because each is compiled by itself.
_MOST_EXAMINED = 40
# The usual causes of a derivative that is not finite, and what to do about them.
_REMEDY = (
    "usually a power, a logarithm or a square root of a prediction that is exactly 0, whose own value is finite. Use "
    "hx.pk.hill or hx.pk.emax for such an effect, or put a constant in the place of 0 before the power is taken: "
    "jnp.where(c > 0, c, 1.0), and then jnp.where once more around the result"
)


def explain_derivative(result: Evaluation) -> str:
    """Return a sentence that names the first parameter and data entry without finite derivatives, or an empty string.

    First and second derivatives are examined at the reference point of the random effects: by each parameter and random
    effect alone, and along a direction in which all of them move together, for mixed derivatives. Estimators need
    second derivatives for modes and Hessians.
    """
    for label, derivatives in _derivatives(result):
        for name, values in derivatives.items():
            bad = ~np.isfinite(values)
            if bad.any():
                place = describe_place(result, np.argwhere(bad)[0], bad)
                return f" The derivative of site '{name}' with respect to {label} is not finite at {place}: {_REMEDY}."
    return ""


def _derivatives(result: Evaluation) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield, for each parameter, the sum of the first and second derivatives of every data entry, by site.

    They are derivatives of a function of one number, so that NaN from zero times infinity arises only where that
    parameter is involved.
    """
    program, layout = result.program, result.layout
    flat, size = jnp.asarray(result.flat), len(program.effect_names)
    reference = jax.jit(lambda pop: program.reference(sanitise(pop), program.constrain(layout.unravel(flat))))
    eta = reference(result.pop)

    zero = jnp.zeros(())

    def densities(pop: Any, params: Any, effects: Any) -> dict[str, Any]:
        run = program.run(sanitise(pop), params, effects)
        return {name: site_log_prob(run.messages[name]) for name in program.sites.data}

    def both(function: Any, one: Any) -> dict[str, Any]:
        first = lambda x: jax.jvp(function, (x,), (jnp.ones_like(x),))[1]  # noqa: E731
        slopes, curvatures = jax.jvp(first, (one,), (jnp.ones_like(one),))
        return jax.tree.map(jnp.add, slopes, curvatures)

    fixed, free = program.constrain(layout.unravel(flat)), layout.unravel(flat)
    for name in list(layout.slices)[:_MOST_EXAMINED]:
        if layout.weights()[layout.slices[name]].any():
            continue
        site = program.sites.population[name]

        def moved(pop: Any, name: str = name, site: Any = site) -> dict[str, Any]:
            # The other parameters are constants here, so that NaN cannot come from derivatives by them.
            return both(lambda x: densities(pop, {**fixed, name: site.transform(free[name] + x)}, eta), zero)

        yield f"'{name}'", jax.tree.map(np.asarray, jax.jit(moved)(result.pop))
    for index, name in enumerate(program.effect_names[:_MOST_EXAMINED]):
        shift = jnp.arange(size) == index
        along = lambda pop, s=shift: both(lambda x: densities(pop, fixed, eta + x * s), zero)  # noqa: E731
        yield f"'{name}'", jax.tree.map(np.asarray, jax.jit(along)(result.pop))

    def together(x: Any, pop: Any) -> dict[str, Any]:
        at = {key: value if layout.weights()[layout.slices[key]].any() else value + x for key, value in free.items()}
        return densities(pop, program.constrain(at), eta + x)

    mixed = lambda pop: both(lambda x: together(x, pop), zero)  # noqa: E731
    yield "several parameters together", jax.tree.map(np.asarray, jax.jit(mixed)(result.pop))
