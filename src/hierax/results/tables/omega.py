"""Standard deviations and correlations of random effects with their uncertainty, however the program writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from hierax.results.tables.spread import matrices_apart, matrix_moments, pairs, part_names, prior_moments
from hierax.results.uncertainty.covariance import active_entries

if TYPE_CHECKING:
    from hierax.results.fit import Fit
    from hierax.results.uncertainty.covariance import Covariance

# The 97.5 % quantile of the standard normal distribution, for 95 % intervals.
Z = 1.959963984540054


def spread_table(fit: Fit, covariance: Covariance) -> pd.DataFrame:
    """Return SE and 95 % interval of every random effect's SD, by coordinate, in working coordinates.

    The SE is by the delta method, and the interval is symmetric on the log scale. Where subjects differ, the SDs are
    those of the first. SE and interval are NaN where the SD does not depend on an estimated parameter, or has reached
    the end of its range.
    """
    table = _sd_rows(*_moments(fit, covariance)[0], covariance, list(fit.program.effect_names))
    return table.drop(columns="estimate")


def correlation_table(fit: Fit, covariance: Covariance) -> pd.DataFrame:
    """Return estimate, SE and 95 % interval of every correlation of random effects that is not 0 by its structure.

    The interval is a Wald interval of Fisher's z, so that it stays between −1 and 1.
    """
    values, slopes = _moments(fit, covariance)[1]
    moves = np.abs(slopes).max(-1, initial=0.0) > 0 if slopes.size else values != 0
    return _correlation_rows(values, slopes, covariance, pairs(fit.program.effect_names))[moves]


def matrix_table(fit: Fit, covariance: Covariance) -> pd.DataFrame:
    """Return SDs and correlations of covariance parameters that act outside the prior of random effects.

    An example is L in a program that uses L @ z with standard normal z. SEs and 95 % intervals are computed as for
    random effects.
    """
    program, layout, tables = fit.program, fit.layout, []
    for name in matrices_apart(program, layout, fit.flat, fit.pop, int(fit.rows[0])):
        sds, correlations = _with_slopes(
            fit, covariance, lambda flat, pop, name=name: matrix_moments(program, layout, name, flat)
        )
        parts = part_names(program, name)
        tables.append(_sd_rows(*sds, covariance, [f"SD({part})" for part in parts]))
        tables.append(_correlation_rows(*correlations, covariance, pairs(parts)))
    return pd.concat(tables) if tables else pd.DataFrame()


def fisher_interval(value: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of a 95 % interval of correlations, by Fisher's z."""
    inside = np.clip(value, -1 + 1e-12, 1 - 1e-12)
    width = Z * error / (1 - inside**2)
    return np.tanh(np.arctanh(inside) - width), np.tanh(np.arctanh(inside) + width)


def _errors(slopes: np.ndarray, covariance: Covariance) -> np.ndarray:
    """Return standard errors by the delta method; NaN for quantities that depend on no estimated parameter."""
    matrix = covariance.unconstrained.to_numpy()
    if not slopes.size or not covariance.ok:
        return np.full(len(slopes), np.nan)
    variances = np.einsum("ka,ab,kb->k", slopes, matrix, slopes)
    return np.sqrt(np.where(np.abs(slopes).max(-1) > 0, variances, np.nan))


def _sd_rows(sd: np.ndarray, slopes: np.ndarray, covariance: Covariance, labels: list[str]) -> pd.DataFrame:
    """Return estimate, SE and 95 % interval of standard deviations, the interval on the log scale."""
    errors = _errors(slopes, covariance)
    width = Z * np.divide(errors, sd, out=np.full_like(sd, np.nan), where=sd > 0)
    rows = {"estimate": sd, "SE": errors, "2.5 %": sd * np.exp(-width), "97.5 %": sd * np.exp(width)}
    return pd.DataFrame(rows, index=labels)


def _correlation_rows(
    values: np.ndarray, slopes: np.ndarray, covariance: Covariance, labels: list[str]
) -> pd.DataFrame:
    """Return estimate, SE and 95 % interval of correlations, the interval by Fisher's z."""
    errors = _errors(slopes, covariance)
    low, high = fisher_interval(values, errors)
    return pd.DataFrame({"estimate": values, "SE": errors, "2.5 %": low, "97.5 %": high}, index=labels)


def _moments(fit: Fit, covariance: Covariance) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return (SDs, slopes) and (correlations, slopes) of the first subject's random effects."""
    row = int(fit.rows[0])
    return _with_slopes(fit, covariance, lambda flat, pop: prior_moments(fit.program, fit.layout, flat, pop, row))


def _with_slopes(
    fit: Fit, covariance: Covariance, moments: Callable[[Any, Any], tuple[Any, Any]]
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return both results of ``moments(flat, pop)``, each with its derivatives by the parameters in the covariance."""
    active = active_entries(fit, covariance)

    def of_active(part: Any, pop: Any) -> tuple[Any, Any]:
        return moments(jnp.asarray(fit.flat).at[active].set(part), pop)

    at = jnp.asarray(fit.flat[active])
    values, slopes = jax.jit(lambda part, pop: (of_active(part, pop), jax.jacfwd(of_active)(part, pop)))(at, fit.pop)
    (first, second), (by_first, by_second) = jax.tree.map(np.asarray, (values, slopes))
    return (first, by_first), (second, by_second)
