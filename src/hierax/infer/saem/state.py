"""Where a run of SAEM stands, what its iterations do, and what they show."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Array, Float, Int

from hierax.infer.blocks import Blocks, Vectors
from hierax.infer.saem.kernels import Chains

# The steps of an iteration that are left out, and counted, where they are not finite.
STEPS = (
    "shifts in closed form",
    "variances in closed form",
    "Newton steps",
    "steps of the optimiser",
    "moves with a flow",
)
SHIFT, PRIOR, NEWTON, OPTIMISER, FLOW = range(len(STEPS))


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
    skipped : array of int, (step,)
        How many steps of each kind of ``STEPS`` were not finite and left out, of all so far.
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
    skipped: Int[Array, " step"]


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
