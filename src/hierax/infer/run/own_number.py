"""Numbers that belong to one fit or program, so that random draws of two of them are independent at the same seed."""

from __future__ import annotations

import hashlib

import jax
import numpy as np
from jaxtyping import Array, Float

from hierax.data.population import Population
from hierax.infer.run.owner import population_parts
from hierax.program.density import Program
from hierax.program.identity import digest
from hierax.program.parameters import Layout

# Two estimates from the same data count as one where they agree to this many decimals, in unconstrained space.
_DECIMALS = 3


def number_of(program: Program, layout: Layout, pop: Population, flat: Float[np.ndarray, " parameter"]) -> int:
    """Return a number below 2³² that identifies a program, its sites, its data and an estimate.

    Random keys are made of the seed and this number. Two fits that were both left at the default seed would otherwise
    get the same random numbers, and draws of one would be correlated with draws of the other, though nothing connects
    the two. The number is the same in every process, and after saving and loading.
    """
    name, plate, *sites = _named(program)
    # The estimate is rounded, because its last digits differ between machines. Adding 0 turns -0 into 0.
    estimate = np.round(np.asarray(flat, float), _DECIMALS) + 0.0
    return _number([name, plate, *layout.names(), *sites, digest(population_parts(pop))], estimate.tobytes())


def own_key(seed: int, number: int) -> Array:
    """Return the random key made of a seed and of a number that belongs to one fit or one program."""
    return jax.random.fold_in(jax.random.key(seed), np.uint32(number))


def key_of_program(program: Program, seed: int) -> Array:
    """Return a key that belongs to a program and its sites, whatever its data and parameters.

    Simulations of one program by the same seed have common random numbers, so that designs and parameters are compared
    without noise between them; those of two programs are independent.
    """
    return own_key(seed, _number(_named(program)))


def _named(program: Program) -> list[str]:
    name = getattr(program.model, "__qualname__", type(program.model).__qualname__)
    return [name, program.plate, *program.effect_names, *program.sites.data]


def _number(names: list[str], more: bytes = b"") -> int:
    """Return a number below 2³² that depends on names and bytes alone, so that it is the same in every process."""
    hashed = hashlib.sha256("\n".join(names).encode() + more)
    return int.from_bytes(hashed.digest()[:4], "little")
