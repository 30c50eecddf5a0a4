"""``hx.compare`` and ``hx.lrt``: comparison of fitted models."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from math import comb
from typing import Literal

import numpy as np
import pandas as pd
import scipy.special

from hierax.arguments import mapping
from hierax.errors import FitError
from hierax.infer.run.owner import observation_digest
from hierax.results.fit import Fit
from hierax.results.likelihood import Likelihood

Entry = Fit | Likelihood
# Two models are told apart where their difference in AIC exceeds this many Monte-Carlo standard errors.
_SE_MULTIPLE = 2.0


def compare(models: Mapping[str, Entry]) -> pd.DataFrame:
    """Return a table of the models' likelihoods and information criteria, the lowest AIC first.

    Parameters
    ----------
    models : mapping
        Name → fit, which is compared by its own objective, or what :func:`hierax.log_likelihood` returned for it.

    Returns
    -------
    pandas.DataFrame
        −2 log L with all constants and its Monte-Carlo SE, number of parameters, AIC, BIC (N = number of subjects),
        difference in AIC from the best model, and whether this exceeds its Monte-Carlo error (``told apart``).

    Raises
    ------
    ValueError
        The likelihoods are by different approximations, or of different data or numbers of observations; or a model has
        no marginal likelihood (NUTS, VI, joint MAP).

    Examples
    --------
    >>> constant = hx.fit(model, pop, hx.FOCE(), fixed=['omega'], progress=False)
    >>> hx.compare({'free': fit, 'held': constant}).index[0]
    'held'
    """
    models = mapping("models", models, "names to fits")
    if len(models) < 2:
        raise ValueError("compare needs two models or more: compare({'base': fit, 'covariate': other}).")
    rows = {name: _row(name, entry) for name, entry in models.items()}
    for key, what in (("objective", "approximations"), ("data", "data"), ("n", "numbers of observations")):
        values = {name: row[key] for name, row in rows.items()}
        if len(set(values.values())) > 1:
            shown = "" if key == "data" else f": {values}"
            raise ValueError(
                f"The models' likelihoods are of different {what}{shown}, so that differences between them would not "
                f"be due to the models alone. Refit on the same data, or pass hx.log_likelihood(fit, method) of "
                f"each, with one method for all."
            )
    table = pd.DataFrame.from_dict(rows, orient="index").drop(columns=["data", "n"])
    table = table.sort_values("AIC")
    table.insert(5, "ΔAIC", table["AIC"] - table["AIC"].iloc[0])
    error = np.hypot(table["SE"], table["SE"].iloc[0])
    table["told apart"] = (table["ΔAIC"].abs() > _SE_MULTIPLE * error) | (error == 0)
    return table


def _row(name: str, entry: Entry) -> dict[str, object]:
    if not isinstance(entry, Fit | Likelihood):
        raise ValueError(
            f"'{name}' is a {type(entry).__name__}, which has no likelihood to compare. Pass a fit, or what "
            f"hx.log_likelihood returned for it."
        )
    value, se = (entry.minus_two, 2 * entry.se) if isinstance(entry, Likelihood) else (-2 * entry.log_likelihood, 0.0)
    if not np.isfinite(value):
        raise ValueError(
            f"'{name}' has no marginal likelihood of its own ({_label(entry)}). Pass hx.log_likelihood(fit, method)."
        )
    bic = entry.bic() if isinstance(entry, Fit) else entry.bic
    return {
        "-2 log L": value,
        "SE": se,
        "parameters": entry.n_parameters,
        "AIC": entry.aic,
        "BIC": bic,
        "objective": _label(entry),
        "data": observation_digest(entry.pop) if isinstance(entry, Fit) else entry.data,
        "n": entry.n_observations,
    }


def _label(entry: Entry) -> str:
    return entry.label if isinstance(entry, Likelihood) else entry.estimator.label


@dataclasses.dataclass(frozen=True)
class Test:
    """A likelihood-ratio test.

    Attributes
    ----------
    statistic, p_value : float
        Twice the difference of the log likelihoods, and its p value.
    df, boundary : int
        Number of parameters that the larger model has in addition, and how many of these are variances that are 0, the
        boundary of their range, in the smaller model.
    reference : str
        The distribution that the statistic was compared with.
    """

    # Keeps pytest from collecting this class, because of its name, as a test.
    __test__ = False

    statistic: float
    p_value: float
    df: int
    boundary: int
    reference: str


def lrt(smaller: Entry, larger: Entry, *, boundary: int | Literal["auto"] = "auto") -> Test:
    """Return the likelihood-ratio test of two nested models.

    Parameters
    ----------
    smaller, larger : Fit or Likelihood
        Both by the same approximation, on the same data. Whether they are nested is not checked.
    boundary : int or "auto"
        How many of the additional parameters of ``larger`` are variances that are 0, the boundary of their range, in
        ``smaller``. By default the number of additional random effects, which is known only where both are fits; 0
        otherwise.

    Returns
    -------
    Test

    Notes
    -----
    With b variances at the boundary the statistic follows Σ_j C(b, j) 2^−b χ²(df − b + j): exact for one, and for
    several whose estimates are uncorrelated (Self & Liang 1987; Stram & Lee 1994).

    Examples
    --------
    >>> held = hx.fit(model, pop, hx.FOCE(), fixed=['omega'], progress=False)
    >>> hx.lrt(held, fit).df
    1
    """
    compare({"smaller": smaller, "larger": larger})
    df = larger.n_parameters - smaller.n_parameters
    if df < 1:
        raise ValueError(
            f"The larger model has {larger.n_parameters} parameters and the smaller {smaller.n_parameters}: swap them, "
            f"or compare models of equal size by compare()."
        )
    if boundary == "auto":
        fits = isinstance(smaller, Fit) and isinstance(larger, Fit)
        effects = len(larger.program.effect_names) - len(smaller.program.effect_names) if fits else 0  # type: ignore[union-attr]
        boundary = int(np.clip(effects, 0, df))
    log_larger, log_smaller = larger.log_likelihood, smaller.log_likelihood
    statistic = 2 * (log_larger - log_smaller)
    if statistic < -1e-3 * (1 + abs(log_smaller)):
        raise FitError(
            f"The larger model's log likelihood ({log_larger:.4f}) is below the smaller's ({log_smaller:.4f}), so that "
            f"its fit is not at its optimum, or the models are not nested. Refit it with init= of the smaller one."
        )
    statistic = max(statistic, 0.0)
    weights = [comb(boundary, j) / 2**boundary for j in range(boundary + 1)]
    free = df - boundary
    tails = [
        scipy.special.chdtrc(free + j, statistic) if free + j else float(statistic == 0) for j in range(boundary + 1)
    ]
    parts = [f"{weight:g}·χ²({free + j})" for j, weight in enumerate(weights)]
    return Test(statistic, float(np.dot(weights, tails)), df, boundary, " + ".join(parts))
