"""Population parameters of simulated data sets: the estimate, or draws of its uncertainty."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hierax.results.fit import Evaluation, Fit
from hierax.results.uncertainty.draws import asymptotic_draws

# What ``parameters=`` takes: a word, a table of draws, or an object that holds one (``hx.SIR``, ``hx.Bootstrap``).
Parameters = Any


def drawn_parameters(fit: Evaluation | None, parameters: Parameters, n: int, seed: int) -> np.ndarray | None:
    """Return the unconstrained population parameters of ``n`` replicates, or None for the estimate in all of them.

    Parameters
    ----------
    parameters : {"draws", "estimate"}, SIR, Bootstrap, DataFrame or None
        None stands for draws of the posterior where the fit has them, else for the estimate. ``"draws"`` stands for
        draws of the posterior or, where there is none, of the estimates' asymptotic distribution.

    Raises
    ------
    ValueError
        There is nothing to draw from, or the columns of a table are not parameters of the fit.
    """
    samples = fit.samples if isinstance(fit, Fit) else None
    if parameters is None:
        parameters = "estimate" if samples is None else "draws"
    if isinstance(parameters, str) and parameters == "estimate":
        return None
    if not isinstance(fit, Fit):
        raise ValueError(
            f"parameters={_shown(parameters)} asks for draws of the population parameters, but a model or an "
            f"evaluation at fixed parameters has no uncertainty to draw from. Pass a fit, or parameters='estimate'."
        )
    rng = np.random.default_rng([seed, 1])
    if isinstance(parameters, str):
        if parameters != "draws":
            raise ValueError(
                f"parameters={parameters!r} is not known. Use 'draws', 'estimate', or what hx.sir or hx.bootstrap "
                f"returned."
            )
        if samples is None:
            return asymptotic_draws(fit, n, seed)[:n]
        flats = samples.flat.reshape(-1, samples.flat.shape[-1])
    else:
        flats = _from_table(fit, _table(parameters))
    return flats[_spread(len(flats), n, rng)]


def how_drawn(fit: Evaluation | None, parameters: Parameters) -> str:
    """Return in words which population parameters the replicates have."""
    samples = fit.samples if isinstance(fit, Fit) else None
    if isinstance(parameters, str) and parameters == "estimate":
        return "the estimate in every replicate"
    if samples is not None and (parameters is None or isinstance(parameters, str)):
        return "a draw of the posterior for every replicate"
    if parameters is None:
        return "the estimate in every replicate"
    if isinstance(parameters, str):
        return "a draw of the estimates' asymptotic normal distribution for every replicate"
    return f"a row of {type(parameters).__name__} for every replicate"


def _shown(parameters: Parameters) -> str:
    return repr(parameters) if isinstance(parameters, str) else type(parameters).__name__


def _spread(there: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``n`` random numbers of the ``there`` rows, where every row is used before any is used twice."""
    rounds = [rng.permutation(there) for _ in range(-(-n // there))]
    return np.concatenate(rounds)[:n]


def _table(parameters: Parameters) -> pd.DataFrame:
    """Return the table of draws that an object is, or holds."""
    for holder in (parameters, getattr(parameters, "draws", None), getattr(parameters, "estimates", None)):
        if isinstance(holder, pd.DataFrame):
            return holder
    raise ValueError(
        f"parameters= got {type(parameters).__name__}, which holds no table of draws. Use 'draws', 'estimate', a "
        f"DataFrame with a column a parameter, or what hx.sir or hx.bootstrap returned."
    )


def _from_table(fit: Fit, table: pd.DataFrame) -> np.ndarray:
    """Return flat vectors from rows on the natural scale; parameters without a column keep their estimates."""
    names = fit.layout.names()
    unknown = [str(name) for name in table.columns if name not in names]
    if unknown or not len(table):
        raise ValueError(
            f"The table of parameters has {len(table)} rows, and its columns {unknown} are not parameters of the "
            f"fit. Give one row or more, with columns among {names[:20]}."
        )
    natural = np.repeat(fit.layout.natural(fit.flat[None]), len(table), axis=0)
    for name in table.columns:
        natural[:, names.index(str(name))] = table[name].to_numpy(float)
    flats = fit.layout.from_natural(natural)
    if not np.isfinite(flats).all():
        bad = sorted({names[column] for column in np.nonzero(~np.isfinite(flats))[1]})
        raise ValueError(f"The table of parameters has values of {bad} that are outside their constraints or missing.")
    return flats
