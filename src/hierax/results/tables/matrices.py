"""Which elements of a matrix parameter are shown, and in which form."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hierax.program.sites import PopulationSite

_CORRELATIONS = ("CorrCholesky", "CorrMatrix")


def shown(site: PopulationSite, value: Any) -> Array:
    """Return a parameter as it is shown: for the Cholesky factor of a correlation matrix, the matrix itself.

    ``value`` may have leading axes of draws.
    """
    value = jnp.asarray(value)
    return value @ jnp.swapaxes(value, -1, -2) if site.constraint == "CorrCholesky" else value


def shown_places(site: PopulationSite) -> np.ndarray:
    """Return which elements of a parameter are shown, flat: of a matrix, the lower triangle.

    The diagonal is included except for correlations. The other elements are constants (ones on the diagonal of a
    correlation matrix, zeros above that of a triangular one) or repeat those of the lower triangle.
    """
    if len(site.shape) != 2:
        return np.ones(site.shape, bool).ravel()
    return np.tril(np.ones(site.shape, bool), -1 if is_correlation(site) else 0).ravel()


def is_correlation(site: PopulationSite) -> bool:
    """Return whether a parameter is a correlation matrix, or its Cholesky factor."""
    return site.constraint in _CORRELATIONS
