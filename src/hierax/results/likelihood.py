"""``hx.log_likelihood``: the marginal likelihood at a fit's estimate by quadrature or importance sampling."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from hierax.data.population import Population
from hierax.errors import tell
from hierax.infer.blocks import draw_moments
from hierax.infer.fitting.outcome import evaluated_fields
from hierax.infer.marginal.estimator import Estimator
from hierax.infer.marginal.importance import ImportanceSampling, importance_sample
from hierax.infer.marginal.laplace import Laplace
from hierax.infer.marginal.quadrature import AGQ
from hierax.infer.marginal.session import Session, session_of
from hierax.infer.pareto import HIGH_K, pareto_k
from hierax.infer.run.owner import observation_digest
from hierax.results.fit import Evaluation, Fit
from hierax.results.fixed import as_fit
from hierax.results.uncertainty.conditional import conditional_moments, padded_draws

# Number of draws per subject from which conditional means and covariances are computed.
_DRAWS = 1000


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """The marginal log likelihood at an estimate, and how well it is known.

    Attributes
    ----------
    label : str
        Name of the method.
    log_likelihood : float
        The marginal log likelihood, with all constants.
    se : float
        Monte-Carlo standard error of ``log_likelihood``; 0 for a deterministic method.
    n_gaussian, n_parameters, n_subjects, n_observations : int
        Number of Gaussian observations in the constant of the OFV, and the counts that information criteria use.
    data : str
        Digest of the observations, by which likelihoods of different data are told apart.
    subjects : pandas.DataFrame
        One row per subject: log_likelihood, and for importance sampling se, pareto_k and effective sample size.

    Examples
    --------
    >>> found = hx.log_likelihood(fit, hx.AGQ(5))
    >>> found.se
    0.0
    """

    label: str
    log_likelihood: float
    se: float
    n_gaussian: int
    n_parameters: int
    n_subjects: int
    n_observations: int
    data: str
    subjects: pd.DataFrame

    @property
    def minus_two(self) -> float:
        """−2 log L."""
        return -2 * self.log_likelihood

    @property
    def ofv(self) -> float:
        """−2 log L without the constant of the Gaussian observations."""
        return self.minus_two - self.n_gaussian * float(np.log(2 * np.pi))

    @property
    def aic(self) -> float:
        """−2 log L + 2 p."""
        return self.minus_two + 2 * self.n_parameters

    @property
    def bic(self) -> float:
        """−2 log L + p·log N, N the number of subjects."""
        return self.minus_two + self.n_parameters * float(np.log(self.n_subjects))

    def __repr__(self) -> str:
        error = f" ± {2 * self.se:.3g} (Monte-Carlo SE)" if self.se else ""
        return f"-2 log L {self.minus_two:.5f}{error} by {self.label}; OFV {self.ofv:.5f}"


def log_likelihood(
    fit: Evaluation,
    method: Estimator | ImportanceSampling | None = None,
    *,
    pop: Population | None = None,
    seed: int = 0,
) -> Likelihood:
    """Return the marginal log likelihood at a fit's estimate, of its own population or of held-out subjects.

    Parameters
    ----------
    fit : Fit or Evaluation
        A fit by any estimator, or an evaluation at fixed parameters.
    method : AGQ, FOCE, Laplace, FO or ImportanceSampling
        By default ``AGQ(9)`` for up to 3 random effects per subject, else ``ImportanceSampling(10_000)``.
    pop : Population, optional
        Other subjects, for whom the same program holds; by default those of the fit.
    seed : int
        Seed of the samples.

    Returns
    -------
    Likelihood

    Notes
    -----
    The log of a Monte-Carlo mean is biased low, by half its variance. A Pareto k above 0.7 means that the tail of a
    subject's weights is too heavy for this number of samples to give a reliable mean: try ``proposal="t"`` or
    ``centre="mean"``.

    Examples
    --------
    >>> round(hx.log_likelihood(fit, hx.AGQ(9)).minus_two, 2)
    32.5
    """
    fit = as_fit(fit)
    if pop is not None:
        fit = _elsewhere(fit, pop)
    if method is None:
        method = AGQ(9, hessian="full") if len(fit.program.effect_names) <= 3 else ImportanceSampling()
    if isinstance(method, Estimator):
        return _deterministic(fit, method)
    if not isinstance(method, ImportanceSampling):
        raise ValueError(f"method is {method!r}, but must be AGQ(n), Laplace(), FOCE(), or ImportanceSampling(n).")
    if not fit.program.sites.effects:
        raise ValueError("The program has no random effects to sample; its log likelihood is fit.log_likelihood.")
    logs = importance_sample(
        fit.program, fit.pop, fit.params, *_proposal(fit, method), method=method, seed=seed
    )[fit.rows]  # fmt: skip
    table = weight_table(logs, fit.ids)
    high = table.index[table["pareto_k"] > HIGH_K]
    if len(high):
        tell(
            f"The importance weights of {len(high)} of {len(table)} subjects have a Pareto k above {HIGH_K} (subject "
            f"{high[0]}: {table['pareto_k'][high[0]]:.2f}), so that neither their mean nor its error can be trusted. "
            f"Use proposal='t', centre='mean', or more samples.",
        )
    return _bundle(fit, method.label, table, float(np.sqrt((table["se"] ** 2).sum())))


def _elsewhere(fit: Fit, pop: Population) -> Fit:
    """Return the fit with another population in place of its own: the same parameters, with that population's modes."""
    estimator = Laplace(newton=fit.approximation.newton) if fit.program.sites.effects else fit.approximation
    session = session_of(fit.program, pop, estimator)
    fields = evaluated_fields(session, fit.flat, session.value(fit.flat, _encoded(fit, pop)))
    return dataclasses.replace(fit, **fields, moments=None, samples=None, variational=None)


def _encoded(fit: Fit, pop: Population) -> np.ndarray | None:
    """Return the means that an amortised guide gives other subjects, or None where the fit has no such guide.

    The search for modes starts at them, because there may be several modes.
    """
    guide = fit.variational
    if guide is None or guide.setting.vi.guide.local:
        return None
    start = np.full((pop.n_subjects, len(fit.program.effect_names)), np.nan)
    start[np.flatnonzero(np.asarray(pop.subject_mask))] = guide.encode(pop)[0]
    return start


def _proposal(fit: Fit, method: ImportanceSampling) -> tuple[np.ndarray, np.ndarray]:
    """Return centres and covariances of the proposals."""
    if method.centre == "mode":
        return conditional_moments(dataclasses.replace(fit, moments=None))
    return draw_moments(padded_draws(fit, _DRAWS))


def weight_table(logs: np.ndarray, ids: Any) -> pd.DataFrame:
    """Return, by subject, the log mean weight, its SE by the delta method, Pareto k and effective sample size."""
    n = logs.shape[1]
    # For a subject none of whose samples has a positive density, this makes the log mean minus infinity, not NaN.
    top = np.where(np.isfinite(logs.max(1)), logs.max(1), 0.0)
    weights = np.exp(logs - top[:, None])
    mean = weights.mean(1)
    # The same subjects have the log of 0, and an error relative to 0. Both stay in the table, without a warning.
    with np.errstate(divide="ignore", invalid="ignore"):
        table = {
            "log_likelihood": np.log(mean) + top,
            "se": weights.std(1, ddof=1) / np.sqrt(n) / mean,
            "pareto_k": pareto_k(logs),
            "ess": n * mean**2 / (weights**2).mean(1),
        }
    return pd.DataFrame(table, index=pd.Index(ids, name="subject"))


def _deterministic(fit: Fit, method: Estimator) -> Likelihood:
    session = Session(fit.program, method, fit.pop, fit.layout)
    out = session.value(fit.flat, fit.eta)
    values = -np.asarray(out.value)[fit.rows]
    table = pd.DataFrame({"log_likelihood": values}, index=pd.Index(fit.ids, name="subject"))
    return _bundle(fit, method.label, table, 0.0)


def _bundle(fit: Fit, label: str, table: pd.DataFrame, se: float) -> Likelihood:

    return Likelihood(
        label=label,
        log_likelihood=float(table["log_likelihood"].sum()),
        se=se,
        n_gaussian=fit.n_gaussian,
        n_parameters=fit.n_parameters,
        n_subjects=len(fit.rows),
        n_observations=fit.n_observations,
        data=observation_digest(fit.pop),
        subjects=table,
    )
