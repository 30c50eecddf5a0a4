"""Draws of the estimates' asymptotic distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hierax.results.uncertainty.covariance import active_entries, usable_covariance
from hierax.results.uncertainty.own_number import own_number

if TYPE_CHECKING:
    from hierax.results.fit import Fit

# Independent draws are passed to ArviZ as one chain. Cut into several, they would get an R-hat near 1, which would say
# nothing about them.
CHAINS = 1


def as_chains(values: np.ndarray) -> np.ndarray:
    """Return (draw, ...) as (chain, draw, ...)."""
    return values.reshape(CHAINS, -1, *values.shape[1:])


def chain_coords(count: int) -> dict[str, np.ndarray]:
    """Return the coordinates of ``count`` draws in chains."""
    return {"chain": np.arange(CHAINS), "draw": np.arange(count // CHAINS)}


def asymptotic_draws(fit: Fit, draws: int, seed: int) -> np.ndarray:
    """Return draws of the flat unconstrained vector, (draw, parameter).

    They are normal with the fit's usual covariance. Fixed entries and network weights stay at their values.

    Raises
    ------
    ValueError
        The covariance does not exist.
    """
    covariance = usable_covariance(fit, "drawn from")
    active = active_entries(fit, covariance)
    out = np.repeat(fit.flat[None], draws, axis=0)
    if len(active):
        normal = np.random.default_rng([seed, own_number(fit)]).standard_normal((draws, len(active)))
        out[:, active] += normal @ np.linalg.cholesky(covariance.unconstrained.to_numpy()).T
    return out
