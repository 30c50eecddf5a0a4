"""Each subject's distribution given its data, at the estimate: draws, and the information by Louis' formula."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Float

from hierax.infer.conditional import conditional_draws
from hierax.infer.louis import louis_information
from hierax.infer.roles import find_roles
from hierax.results.draws import own_number

if TYPE_CHECKING:
    from hierax.results.fit import Fit

# Draws a subject for the information matrix: its noise is about 1 / sqrt(subjects · draws).
_LOUIS = 20_000


def conditional_moments(fit: Fit) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance of each subject's random effects given its data, roughly.

    Those that chains have seen, or else modes and inverse Hessians.
    """
    if fit.moments is not None:
        return fit.moments
    return np.nan_to_num(fit.eta), inverse_blocks(fit.hessian)


def inverse_blocks(blocks: np.ndarray) -> np.ndarray:
    """Return the inverses of symmetric blocks, 0 in directions that are not positive definite."""
    values, vectors = np.linalg.eigh(np.where(np.isfinite(blocks), blocks, 0.0))
    inverse = np.where(values > 0, 1.0 / np.where(values > 0, values, 1.0), 0.0)
    return np.einsum("nij,nj,nkj->nik", vectors, inverse, vectors)


def draw_moments(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance by subject of draws (chain, draw, subject, coordinate)."""
    flat = draws.reshape(-1, *draws.shape[2:])
    mean = flat.mean(0)
    centred = flat - mean
    return mean, np.einsum("mni,mnj->nij", centred, centred) / max(len(flat) - 1, 1)


def conditional_dataset(fit: Fit, draws: int) -> xr.Dataset:
    """Return labelled draws; see :meth:`hierax.Fit.conditional`."""
    values = padded_draws(fit, draws)[:, :, fit.rows]
    coords = {
        "chain": np.arange(values.shape[0]),
        "draw": np.arange(values.shape[1]),
        "subject": fit.ids,
        "eta_name": list(fit.program.effect_names),
    }
    return xr.Dataset({"eta": (("chain", "draw", "subject", "eta_name"), values)}, coords=coords)


def padded_draws(fit: Fit, draws: int) -> Float[np.ndarray, "chain draw subject coordinate"]:
    """Return draws of all subjects, padded ones included."""
    if not fit.program.sites.effects:
        raise ValueError("The program has no random effects, so that there is nothing to draw given the data.")
    centre, covariance = conditional_moments(fit)
    return conditional_draws(fit.program, fit.pop, fit.params, centre, covariance, draws, fit.seed, own_number(fit))


def louis(fit: Fit, active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the observed information and the subjects' scores (of −log L) at the estimate, in the active entries."""
    draws = int(np.clip(_LOUIS // max(len(fit.rows), 1), 200, 2000))
    values = padded_draws(fit, draws)
    flat = values.reshape(-1, *values.shape[2:])
    roles = find_roles(fit.program, fit.pop, fit.layout, fit.flat, fit.free)
    information, scores = louis_information(fit.program, fit.layout, fit.pop, fit.flat, active, roles, flat)
    return information, -scores
