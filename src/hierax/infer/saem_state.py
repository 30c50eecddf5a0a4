"""Where a run of SAEM stands, what its iterations do, and what they show."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Array, Float

from hierax.infer.blocks import Blocks, Vectors
from hierax.infer.kernels import Chains


class State(NamedTuple):
    """Where a run of SAEM stands: everything that its next iteration depends on.

    Attributes
    ----------
    flat : array, (parameter,)
        Population parameters, unconstrained.
    chains : Chains
    first, second : arrays, (subject, coordinate[, coordinate])
        Averaged moments of φ = η + Aθ.
    centre, square : arrays, (subject, coordinate[, coordinate])
        Averaged moments of η, for the chains' steps.
    hessian : array, (rest, rest)
        Averaged Hessian of −log joint density in the parameters without closed form.
    optimiser : pytree
        State of the optimiser of weights.
    key : PRNG key data
    """

    flat: Float[Array, " parameter"]
    chains: Chains
    first: Vectors
    second: Blocks
    centre: Vectors
    square: Blocks
    hessian: Array
    optimiser: Any
    key: Any


class Schedule(NamedTuple):
    """What each iteration of a block does: all arrays of one length."""

    active: Any
    step: Any
    gain: Any
    annealing: Any
    longest: Any


class Trace(NamedTuple):
    """What each iteration shows."""

    flat: Float[Array, "iteration parameter"]
    complete: Float[Array, " iteration"]
    accepted: Float[Array, "iteration kind"]
