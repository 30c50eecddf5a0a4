"""What a vector field depends on: time, and whether by jumps; and the states that no derivative depends on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hierax.dynamics.doses.inputs import Inputs
from hierax.dynamics.notes import Note
from hierax.dynamics.ode.states import States

# JAX primitives whose result may jump while their input, the time, changes smoothly.
_JUMPS = {"lt", "le", "gt", "ge", "eq", "ne", "floor", "ceil", "round", "sign", "rem", "cond", "clamp"}
# Fractions of the dosing interval at which a vector field is compared with itself one interval later.
_PHASES = (0.0, 0.13, 0.37, 0.61, 0.83)
# Relative difference up to which the two derivatives count as the same: well above rounding.
_SAME = 1e-8

_RHYTHM = (
    "The vector field of ODE {name} reads t, and is different at t and at t + II, at a steady-state dose (SS) of "
    "{{subjects}}. Its steady state is computed as if all intervals were like the one after the SS record, with t "
    "from the record's time to II later again and again. A regimen that has always been given would not lead to this "
    "state (with a rhythm of 24 h and II = 12, say). Give the doses one by one from long before (ADDL) instead of "
    "SS, or make II a whole number of the field's periods."
)
_JUMP = (
    "The vector field of ODE {name} compares or rounds t ({how}), so that it may jump inside a step of the solver, and "
    "a jump there costs accuracy (1e-5 of the solution is usual) that no tolerance restores. Declare the times of the "
    "jumps: solve_ode(..., breaks=times), of shape (k,) for all subjects or (subject, k). breaks=() says that there "
    "are none."
)


@dataclasses.dataclass(frozen=True)
class Field:
    """The user's vector field of one subject, with the arguments that it is given.

    Attributes
    ----------
    function : callable
        ``(t, state, args)`` → derivative, as the user wrote it.
    states : States
        Names and shapes of the state.
    y0 : array, (state, subject)
        Initial states.
    leaves : list of arrays or None
        The leaves of ``args`` at the first record, with the subject as first axis; None in place of a function of time.
    tree : PyTreeDef
        Structure of ``args``.
    """

    function: Callable[[Any, Any, Any], Any]
    states: States
    y0: Array
    leaves: list[Any]
    tree: Any

    def __call__(self, t: Any, state: Any, given: list[Any]) -> Any:
        """Return the derivative with functions of time held at 1: solvers know when the doses in them arrive."""
        held = iter(given)
        leaves = [(lambda t: jnp.ones(())) if leaf is None else next(held) for leaf in self.leaves]
        return self.function(t, state, jax.tree.unflatten(self.tree, leaves))

    @property
    def given(self) -> list[Array]:
        """The arguments that are arrays, with the subject as first axis."""
        return [leaf for leaf in self.leaves if leaf is not None]

    def _reads(self, which: Callable[[int, int], bool]) -> tuple[bool, set[str]]:
        """Return whether the derivative depends on some inputs, and the primitives on the way that may make it jump.

        ``which(index, count)`` says whether input ``index`` of ``count`` is one of them. The inputs are t, the leaves
        of the state, and the arguments, in this order.
        """
        example = (jnp.zeros(()), self.states.unpack(self.y0[:, 0]), [leaf[0] for leaf in self.given])
        flat, tree = jax.tree.flatten(example)
        closed = jax.make_jaxpr(lambda *leaves: self(*jax.tree.unflatten(tree, leaves)))(*flat)
        found: set[str] = set()
        reached = _follow(closed.jaxpr, [which(index, len(flat)) for index in range(len(flat))], found)
        return any(reached), found

    def time_dependence(self) -> tuple[bool, set[str]]:
        """Return whether the derivative depends on t, and the primitives on the way that may make it jump."""
        return self._reads(lambda index, count: index == 0)

    def cumulative(self) -> np.ndarray:
        """Return which numbers of the state no derivative, not even their own, depends on (an AUC, say): (state,)."""
        sizes = [size or 1 for size in self.states.sizes]
        free = [not self._reads(lambda index, count, leaf=leaf: index == leaf + 1)[0] for leaf in range(len(sizes))]
        return np.repeat(free, sizes)

    def rhythm(self, inputs: Inputs) -> Array:
        """Return which subjects have a steady state and a field that differs one dosing interval later: (subject,)."""

        def one(t: Array, interval: Array, y: Array, given: list[Any]) -> Array:
            state = self.states.unpack(y)
            now, later = (self.states.pack(self(when, state, given)) for when in (t, t + interval))
            return jnp.any(jnp.abs(later - now) > _SAME * (jnp.abs(later) + jnp.abs(now)))

        by_dose = jax.vmap(one, in_axes=(0, 0, None, None))
        by_subject = jax.vmap(by_dose, in_axes=(0, 0, 1, 0))
        y = jnp.abs(self.y0) + 1.0
        given = [jnp.broadcast_to(leaf, (y.shape[1], *leaf.shape[1:])) for leaf in self.given]
        moved = jnp.zeros(inputs.mask.shape, bool)
        for phase in _PHASES:
            moved = moved | by_subject(inputs.time + phase * inputs.interval, inputs.interval, y, given)
        return jnp.any(moved & (inputs.periodic | inputs.constant), axis=1)


def _follow(jaxpr: Any, reached: list[bool], found: set[str]) -> list[bool]:
    """Return which outputs depend on the inputs ``reached``, and add the primitives that may jump to ``found``."""
    known = dict(zip(jaxpr.invars, reached, strict=True))
    for equation in jaxpr.eqns:
        at = [known.get(var, False) if not hasattr(var, "val") else False for var in equation.invars]
        out = [any(at)] * len(equation.outvars)
        inner = _inner(equation)
        if any(at) and inner is not None:
            out = _follow(inner, at, found)
        elif any(at):
            whole = equation.primitive.name == "convert_element_type" and not _floating(equation.params["new_dtype"])
            if (equation.primitive.name in _JUMPS and not _asks_for_nan(equation)) or whole:
                found.add(equation.primitive.name)
        known.update(zip(equation.outvars, out, strict=True))
    return [not hasattr(var, "val") and known.get(var, False) for var in jaxpr.outvars]


def _asks_for_nan(equation: Any) -> bool:
    """Return whether a number is compared with itself, which is how JAX recognises NaN (inside a softplus, say)."""
    first, *others = equation.invars
    return equation.primitive.name in ("eq", "ne") and all(other is first for other in others)


def _inner(equation: Any) -> Any:
    """Return the jaxpr that an equation calls with its own inputs and outputs, or None if it calls none."""
    for name in ("jaxpr", "call_jaxpr"):
        called = equation.params.get(name)
        called = getattr(called, "jaxpr", called)
        if (
            hasattr(called, "eqns")
            and len(called.invars) == len(equation.invars)
            and len(called.outvars) == len(equation.outvars)
            and equation.primitive.name not in ("scan", "while", "cond")
        ):
            return called
    return None


def _floating(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating)


def field_notes(name: str, field: Field, inputs: Inputs, watch_jumps: bool) -> Iterator[Note]:
    """Return the notes on a vector field; ``watch_jumps`` asks for those on jumps, which may cost accuracy."""
    reads, jumps = field.time_dependence()
    if reads and inputs.steady_states:
        yield Note(_RHYTHM.format(name=repr(name)), field.rhythm(inputs))
    if jumps and watch_jumps:
        yield Note(_JUMP.format(name=repr(name), how=", ".join(sorted(jumps))))
