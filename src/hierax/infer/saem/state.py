"""The state of a run of SAEM, the schedule of its iterations, and what they record."""

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
    """The state of a run of SAEM: everything that its next iteration depends on.

    Attributes
    ----------
    flat : array, (parameter,)
        Population parameters, unconstrained.
    chains : Chains
    first, second : arrays, (subject, coordinate[, coordinate])
        Averaged moments of φ = η + Aθ.
    centre, square : arrays, (subject, coordinate[, coordinate])
        Averaged moments of η, for the proposals of the chains.
    hessian : array, (rest, rest)
        Averaged Hessian of −log joint density in the parameters without closed form.
    optimiser : pytree
        State of the optimiser of weights.
    key : PRNG key data
    skipped : array of int, (step,)
        How many steps of each kind in ``STEPS`` were left out so far because they were not finite.
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
    """The settings of every iteration of a block, as arrays of one length.

    Attributes
    ----------
    active : array of bool
        Whether the iteration takes place.
    step : array
        Step of the stochastic approximation; 0 during burn-in.
    gain : array
        How fast the chains' step lengths adapt.
    annealing : array
        Smallest factor by which variances may fall; 0 for no limit.
    longest : array
        Longest Newton step of a parameter.
    """

    active: Any
    step: Any
    gain: Any
    annealing: Any
    longest: Any


class Trace(NamedTuple):
    """Parameters, complete log likelihood and acceptance rates at every iteration."""

    flat: Float[Array, "iteration parameter"]
    complete: Float[Array, " iteration"]
    accepted: Float[Array, "iteration kind"]
