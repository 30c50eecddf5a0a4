"""Compiled objectives: one function a (model, estimator), traced again only for other shapes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hierax.data.population import Population
from hierax.data.sanitise import sanitise
from hierax.infer.blocks import Blocks, Vectors
from hierax.infer.chunks import by_chunks
from hierax.infer.estimator import Anchor, Estimator, scores
from hierax.program.checks import check_program
from hierax.program.density import Program
from hierax.program.sites import read_sites
from hierax.program.trace import Model

# Where a model keeps what was built for it: on the function itself, so that both go together. Models that take no
# attributes are kept here.
_ATTRIBUTE = "__hierax_cache__"
_OTHERS: dict[Any, dict[Hashable, Any]] = {}
# Past this many parameters one reverse pass costs less than a forward pass each.
FORWARD_PARAMETERS = 40


def cached(model: Model, key: Hashable, build: Callable[[], Any]) -> Any:
    """Return what was built for this model and key before, or build it."""
    entries = _entries(model)
    if key not in entries:
        entries[key] = build()
    return entries[key]


def _entries(model: Model) -> dict[Hashable, Any]:
    if not hasattr(model, "__dict__"):
        return _OTHERS.setdefault(model, {})
    return vars(model).setdefault(_ATTRIBUTE, {})


def forget(model: Model) -> None:
    """Drop everything that was built for a model."""
    _entries(model).clear()


def structure(pop: Population) -> Hashable:
    """Return what of a population a compiled function depends on: names, shapes and types, no values."""
    leaves, tree = jax.tree.flatten(pop)
    return tree, tuple((np.shape(leaf), jnp.result_type(leaf).name) for leaf in leaves)


def read_program(model: Model, pop: Population, plate: str = "subject", *, checked: bool = True) -> Program:
    """Parse and check a program for a shape of population; cached.

    ``checked=False`` is for other designs of a population that the program was checked with.
    """
    key = (plate, structure(pop), jax.config.read("jax_enable_x64"))
    program = cached(model, ("program", *key), lambda: Program(model, read_sites(model, pop, plate), plate))
    if checked:
        cached(model, ("checked", *key), lambda: check_program(program, pop))
    return program


class Evaluated(NamedTuple):
    """The objective and all that was found on the way to it.

    ``value`` −log L_i, (subject,); ``gradient`` of its sum, (parameter,); ``scores`` by subject,
    (parameter, subject), None in reverse mode; ``eta`` modes, ``hessian`` of −log joint there, ``code`` results,
    ``joint`` −log joint at the modes.
    """

    value: Float[Array, " subject"]
    gradient: Float[Array, " parameter"]
    scores: Float[Array, "parameter subject"] | None
    eta: Vectors
    hessian: Blocks
    code: Int[Array, " subject"]
    iterations: Int[Array, ""]
    joint: Float[Array, " subject"]


def compiled_objective(
    program: Program, estimator: Estimator, unravel: Callable[[Array], Any], forward: bool
) -> Callable[[Array, Vectors, Population], Evaluated]:
    """Return the compiled objective with its gradient, of (flat unconstrained parameters, warm start, population).

    ``forward``: the gradient by one forward pass a parameter, which also gives scores by subject; else in reverse.
    """

    def params_of(flat: Array) -> Any:
        return program.constrain(unravel(flat))

    def evaluate(flat: Array, eta: Vectors, pop: Population) -> Evaluated:
        return by_chunks(some, lambda parts: _merged(parts, len(eta)), flat, eta, sanitise(pop))

    def some(flat: Array, eta: Vectors, clean: Population) -> Evaluated:
        found = estimator.anchor(program, clean, params_of(flat), eta)
        anchor: Anchor = jax.lax.stop_gradient(found)
        by_subject = None
        if forward:
            value, by_subject = scores(estimator, program, clean, params_of, flat, anchor)
            gradient = by_subject.sum(-1)
        else:
            value, pull = jax.vjp(
                lambda vector: estimator.negative_log_likelihood(program, clean, params_of(vector), anchor), flat
            )
            gradient = pull(jnp.ones_like(value))[0]
        return Evaluated(value, gradient, by_subject, anchor.eta, *anchor[1:])

    return _cached_jit(program, ("objective", estimator, forward), evaluate)


def _merged(parts: Evaluated, n: int) -> Evaluated:
    """Return the outputs of all chunks as one, without the subjects that fill the last chunk up."""

    def subjects(leaf: Array, axis: int = 0) -> Array:
        moved = jnp.moveaxis(leaf, 0, axis)
        shape = (*moved.shape[:axis], -1, *moved.shape[axis + 2 :])
        return jax.lax.slice_in_dim(moved.reshape(shape), 0, n, axis=axis)

    return Evaluated(
        value=subjects(parts.value),
        gradient=parts.gradient.sum(0),
        scores=None if parts.scores is None else subjects(parts.scores, 1),
        eta=subjects(parts.eta),
        hessian=subjects(parts.hessian),
        code=subjects(parts.code),
        iterations=parts.iterations.max(),
        joint=subjects(parts.joint),
    )


def compiled_value(
    program: Program, estimator: Estimator, unravel: Callable[[Array], Any]
) -> Callable[[Array, Vectors, Population], Evaluated]:
    """Return the compiled objective without its gradient (whose place stays empty)."""

    def evaluate(flat: Array, eta: Vectors, pop: Population) -> Evaluated:
        return by_chunks(some, lambda parts: _merged(parts, len(eta)), flat, eta, sanitise(pop))

    def some(flat: Array, eta: Vectors, clean: Population) -> Evaluated:
        params = program.constrain(unravel(flat))
        anchor = estimator.anchor(program, clean, params, eta)
        value = estimator.negative_log_likelihood(program, clean, params, anchor)
        empty = jnp.zeros(0)
        return Evaluated(value, empty, None, anchor.eta, *anchor[1:])

    return _cached_jit(program, ("value", estimator), evaluate)


def _cached_jit(program: Program, key: tuple[Any, ...], function: Callable[..., Any]) -> Callable[..., Any]:
    # The program object is one a shape of population, so that it belongs to the key of what is compiled for it.
    return cached(program.model, (*key, id(program)), lambda: jax.jit(function))


def compiled_scores(
    program: Program, estimator: Estimator, unravel: Callable[[Array], Any], active: tuple[int, ...]
) -> Callable[[Array, Vectors, Population], Float[Array, "parameter subject"]]:
    """Return the compiled scores by subject of some parameters alone, where there are too many for all."""

    def evaluate(flat: Array, eta: Vectors, pop: Population) -> Array:
        clean = sanitise(pop)
        anchor = estimator.anchor(program, clean, program.constrain(unravel(flat)), eta)
        chosen = jnp.asarray(active)

        def params_of(part: Array) -> Any:
            return program.constrain(unravel(flat.at[chosen].set(part)))

        return scores(estimator, program, clean, params_of, flat[chosen], jax.lax.stop_gradient(anchor))[1]

    return _cached_jit(program, ("scores", estimator, active), evaluate)
