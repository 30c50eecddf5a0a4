"""Compiled objectives: one function for each model and estimator, traced again only for arrays of other shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hierax.data.population import Population
from hierax.data.sanitise import sanitise
from hierax.infer.blocks import Blocks, Vectors
from hierax.infer.chunks import by_chunks
from hierax.infer.marginal.estimator import Anchor, Estimator, scores
from hierax.program.density import Program
from hierax.program.read import cached

# With more parameters than this, one reverse pass costs less than a forward pass for each parameter.
FORWARD_PARAMETERS = 40


class Evaluated(NamedTuple):
    """The objective and all that was found on the way to it.

    ``value`` is −log L_i, (subject,), and ``gradient`` that of its sum, (parameter,). ``scores`` are the gradients of
    each subject, (parameter, subject), or None in reverse mode. ``eta`` are the modes, ``hessian`` and ``joint`` the
    Hessian and the value of −log joint density there, and ``code`` says how the search for each mode ended.
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

    With ``forward`` the gradient is computed by one forward pass for each parameter, which also gives scores by
    subject; without it, by one reverse pass.
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
    """Return the compiled objective without its gradient, which is left empty."""

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
    return cached(program, key, lambda: jax.jit(function))


def compiled_scores(
    program: Program, estimator: Estimator, unravel: Callable[[Array], Any], active: tuple[int, ...]
) -> Callable[[Array, Vectors, Population], Float[Array, "parameter subject"]]:
    """Return compiled scores by subject of the ``active`` parameters alone, for models with too many parameters."""

    def evaluate(flat: Array, eta: Vectors, pop: Population) -> Array:
        clean = sanitise(pop)
        anchor = estimator.anchor(program, clean, program.constrain(unravel(flat)), eta)
        chosen = jnp.asarray(active)

        def params_of(part: Array) -> Any:
            return program.constrain(unravel(flat.at[chosen].set(part)))

        return scores(estimator, program, clean, params_of, flat[chosen], jax.lax.stop_gradient(anchor))[1]

    return _cached_jit(program, ("scores", estimator, active), evaluate)
