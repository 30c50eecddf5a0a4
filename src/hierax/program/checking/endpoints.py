"""Endpoints of the data that a program does not use."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from hierax.data.population import Population
from hierax.program.density import Program
from hierax.program.read import cached


def unobserved(program: Program, pop: Population, params: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each endpoint whose observations do not enter the likelihood of any subject."""
    real = np.asarray(pop.subject_mask)[:, None]
    counts = {name: int((np.asarray(mask) & real).sum()) for name, mask in pop.mask.items()}
    asked = [name for name, count in counts.items() if count and name not in program.sites.data]
    if not asked:
        return []

    def joint(pop: Population, params: Any) -> Any:
        return program.log_joint(pop, params, program.reference(pop, params))

    density = cached(program, "density at the reference point", lambda: jax.jit(joint))
    here = np.asarray(density(pop, params))
    out = []
    for name in asked:
        other = dataclasses.replace(pop, dv={**pop.dv, name: np.asarray(pop.dv[name]) + 1.0})
        if np.array_equal(here, np.asarray(density(other, params)), equal_nan=True):
            out.append(f"The model does not observe '{name}', so that its {counts[name]} observations are not used.")
    return out
