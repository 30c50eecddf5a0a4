"""Numbers that make random draws those of one fit, so that draws of two are independent at the same seed."""

from __future__ import annotations

import hashlib

import jax
import numpy as np
from jaxtyping import Array, Float

from hierax.data.population import Population
from hierax.infer.owner import population_parts
from hierax.program.density import Program
from hierax.program.identity import digest
from hierax.program.parameters import Layout

# Decimals of an estimate in unconstrained space that tell two fits of the same data apart.
_DIGITS = 3


def number_of(program: Program, layout: Layout, pop: Population, flat: Float[np.ndarray, " parameter"]) -> int:
    """Return a number below 2³² that belongs to a program, its sites, its data and an estimate.

    Draws are keyed with it beside the seed. Two fits that were both left at the default seed would otherwise get the
    same random numbers, and draws of one would be correlated with draws of the other, though nothing connects the
    two. It is the same in every process, and after saving and loading.
    """
    name, plate, *sites = _named(program)
    parts = [name, plate, *layout.names(), *sites, digest(population_parts(pop))]
    number = hashlib.sha256("\n".join(parts).encode())
    # Rounded, so that the last digits of an optimum, which differ between machines, do not give other draws. Adding 0
    # makes -0 and 0 one.
    number.update((np.round(np.asarray(flat, float), _DIGITS) + 0.0).tobytes())
    return int.from_bytes(number.digest()[:4], "little")


def key_of_program(program: Program, seed: int) -> Array:
    """Return a key that belongs to a program and its sites, whatever its data and parameters.

    Simulations of one program by the same seed have common random numbers, so that designs and parameters are compared
    without noise between them; those of two programs are independent.
    """
    number = hashlib.sha256("\n".join(_named(program)).encode())
    return jax.random.fold_in(jax.random.key(seed), np.uint32(int.from_bytes(number.digest()[:4], "little")))


def _named(program: Program) -> list[str]:
    name = getattr(program.model, "__qualname__", type(program.model).__qualname__)
    return [name, program.plate, *program.effect_names, *program.sites.data]
