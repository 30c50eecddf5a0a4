"""The distribution of random effects with its uncertainty: standard deviations and correlations, however written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from hierax.results.covariance import active_entries
from hierax.results.spread import matrices_apart, matrix_moments, pairs, part_names, prior_moments

if TYPE_CHECKING:
    from hierax.results.covariance import Covariance
    from hierax.results.fit import Fit

Z = 1.959963984540054


def spread_table(fit: Fit, covariance: Covariance) -> pd.DataFrame:
    """Return SE and 95 % interval of every random effect's SD, by coordinate, in working coordinates.

    By the delta method, the interval on the log scale. Of the first subject, where subjects differ. NaN where the SD
    does not depend on an estimated parameter, or has reached the end of its range.
    """
    sd, slopes = _moments(fit, covariance)[0]
    errors = _errors(slopes, covariance)
    width = Z * np.divide(errors, sd, out=np.full_like(sd, np.nan), where=sd > 0)
    ends = {"2.5 %": sd * np.exp(-width), "97.5 %": sd * np.exp(width)}
    return pd.DataFrame({"SE": errors, **ends}, index=list(fit.program.effect_names))


def correlation_table(fit: Fit, covariance: Covariance) -> pd.DataFrame:
    """Return estimate, SE and 95 % interval of every correlation of random effects that is not 0 by its structure.

    The interval is a Wald interval of Fisher's z, so that it stays between −1 and 1.
    """
    values, slopes = _moments(fit, covariance)[1]
    names = fit.program.effect_names
    moves = np.abs(slopes).max(-1, initial=0.0) > 0 if slopes.size else values != 0
    labels = pairs(names)
    errors = _errors(slopes, covariance)
    low, high = fisher_interval(values, errors)
    table = pd.DataFrame({"estimate": values, "SE": errors, "2.5 %": low, "97.5 %": high}, index=labels)
    return table[moves]


def fisher_interval(value: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of a 95 % interval of correlations, by Fisher's z."""
    inside = np.clip(value, -1 + 1e-12, 1 - 1e-12)
    width = Z * error / (1 - inside**2)
    return np.tanh(np.arctanh(inside) - width), np.tanh(np.arctanh(inside) + width)


def _errors(slopes: np.ndarray, covariance: Covariance) -> np.ndarray:
    """Return standard errors by the delta method; NaN where nothing estimated moves a number."""
    matrix = covariance.unconstrained.to_numpy()
    if not slopes.size or not covariance.ok:
        return np.full(len(slopes), np.nan)
    variances = np.einsum("ka,ab,kb->k", slopes, matrix, slopes)
    return np.sqrt(np.where(np.abs(slopes).max(-1) > 0, variances, np.nan))


def matrix_table(fit: Fit, covariance: Covariance) -> pd.DataFrame:
    """Return SDs and correlations of covariance parameters that act outside the prior of random effects (L @ z).

    With SE and 95 % interval by the delta method: of SDs on the log scale, of correlations by Fisher's z.
    """
    active, program, layout = active_entries(fit, covariance), fit.program, fit.layout
    tables = []
    for name in matrices_apart(program, layout, fit.flat, fit.pop, int(fit.rows[0])):

        def moments(part: Any, name: str = name) -> Any:
            return matrix_moments(program, layout, name, jnp.asarray(fit.flat).at[active].set(part))

        at = jnp.asarray(fit.flat[active])
        values, slopes = jax.jit(lambda part, f=moments: (f(part), jax.jacfwd(f)(part)))(at)
        (sd, correlations), (by_sd, by_correlation) = jax.tree.map(np.asarray, (values, slopes))
        parts = part_names(program, name)
        errors = _errors(by_sd, covariance)
        width = Z * errors / sd
        rows = {"estimate": sd, "SE": errors, "2.5 %": sd * np.exp(-width), "97.5 %": sd * np.exp(width)}
        tables.append(pd.DataFrame(rows, index=[f"SD({part})" for part in parts]))
        errors = _errors(by_correlation, covariance)
        low, high = fisher_interval(correlations, errors)
        rows = {"estimate": correlations, "SE": errors, "2.5 %": low, "97.5 %": high}
        tables.append(pd.DataFrame(rows, index=pairs(parts)))
    return pd.concat(tables) if tables else pd.DataFrame()


def _moments(fit: Fit, covariance: Covariance) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return (SDs, slopes) and (correlations, slopes), the slopes with respect to the entries of the covariance."""
    active, program = active_entries(fit, covariance), fit.program
    row = int(fit.rows[0])

    def moments(part: Any, pop: Any) -> tuple[Any, Any]:
        return prior_moments(program, fit.layout, jnp.asarray(fit.flat).at[active].set(part), pop, row)

    at = jnp.asarray(fit.flat[active])
    values, slopes = jax.jit(lambda part, pop: (moments(part, pop), jax.jacfwd(moments)(part, pop)))(at, fit.pop)
    (sd, correlations), (by_sd, by_correlation) = jax.tree.map(np.asarray, (values, slopes))
    return (sd, by_sd), (correlations, by_correlation)
