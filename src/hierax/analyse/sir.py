"""``hx.sir``: intervals by weighted draws, which do not assume that the likelihood is quadratic."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from hierax.arguments import whole
from hierax.data.population import Population
from hierax.errors import tell
from hierax.infer.marginal.objective import compiled_value
from hierax.infer.pareto import HIGH_K, pareto_k
from hierax.program.read import cached
from hierax.results.fit import Fit
from hierax.results.fixed import need_fit
from hierax.results.uncertainty.covariance import active_entries, usable_covariance
from hierax.results.uncertainty.own_number import own_number


@dataclasses.dataclass(frozen=True, eq=False)
class SIR:
    """Draws of the parameters' uncertainty by sampling importance resampling.

    Attributes
    ----------
    draws : pandas.DataFrame
        Resampled parameter vectors, on the natural scale.
    ess, pareto_k : float
        Effective size of the weighted sample, and the Pareto shape of the tail of its weights; with a shape above 0.7
        the sample cannot be trusted.
    """

    draws: pd.DataFrame
    ess: float
    pareto_k: float

    def interval(self, level: float = 0.95) -> pd.DataFrame:
        """Return percentile intervals."""
        tail = (1 - level) / 2
        ends = self.draws.quantile([tail, 1 - tail]).T
        ends.columns = [f"{100 * tail:g} %", f"{100 * (1 - tail):g} %"]
        return ends


def sir(fit: Fit, n: int = 1000, *, samples: int = 5000, inflate: float = 1.2, seed: int = 0) -> SIR:
    """Return draws of the parameters by sampling importance resampling from their asymptotic distribution.

    The density to draw from is the likelihood as a function of the parameters, times the priors that count.

    Parameters
    ----------
    fit : Fit
        A fit with a covariance; the marginal likelihood is that by ``fit.approximation``.
    n, samples : int
        Number of draws that are kept, and number of draws that are weighted.
    inflate : float
        SDs of the proposal, as a multiple of the asymptotic ones.
    seed : int
        Seed of the draws and of the resampling.

    Returns
    -------
    SIR
        ``.draws``, one row a draw; ``.ess`` and ``.pareto_k`` say what they are worth.

    Notes
    -----
    Dosne, Bergstrand, Harling & Karlsson (2016), J Pharmacokinet Pharmacodyn 43:583. The proposal is normal in
    unconstrained space.

    Examples
    --------
    >>> hx.sir(fit, n=100, samples=500).draws.shape
    (100, 3)
    """
    need_fit(fit, "sir")
    whole("seed", seed, 0)
    if whole("n", n, 1) > whole("samples", samples, 10):
        raise ValueError(
            f"sir(n={n}, samples={samples}) must keep no more draws (n) than it weights (samples). Give more "
            f"samples=, or a smaller n=."
        )
    covariance = usable_covariance(fit, "resampled")
    active = active_entries(fit, covariance)
    factor = inflate * np.linalg.cholesky(covariance.unconstrained.to_numpy())
    rng = np.random.default_rng([seed, own_number(fit)])
    noise = rng.standard_normal((samples, len(active)))
    flats = np.repeat(fit.flat[None], samples, axis=0)
    flats[:, active] += noise @ factor.T
    logs = _log_likelihoods(fit, flats) + 0.5 * (noise**2).sum(1)
    # Draws without a finite likelihood get no weight; `ess` and `pareto_k` show how good the remaining sample is.
    logs = np.where(np.isfinite(logs), logs, -np.inf)
    weights = np.exp(logs - logs.max())
    k = float(pareto_k(logs[None])[0])
    if k > HIGH_K:
        tell(
            f"The weights of sir have a Pareto k of {k:.2f}, above {HIGH_K}: the asymptotic distribution is too far "
            f"from the likelihood. Use a larger inflate=, more samples=, or bootstrap.",
        )
    picked = rng.choice(samples, n, p=weights / weights.sum())
    names = np.array(fit.layout.names())[active]
    draws = pd.DataFrame(fit.layout.natural(flats[picked])[:, active], columns=names)
    return SIR(draws, float(weights.sum() ** 2 / (weights**2).sum()), k)


def _log_likelihoods(fit: Fit, flats: np.ndarray) -> np.ndarray:
    """Return log L − penalty at many parameter vectors, in one compiled loop."""
    program, estimator, session = fit.program, fit.approximation, fit.session
    value = compiled_value(program, estimator, fit.layout.unravel)

    def run(flats: jax.Array, eta: jax.Array, pop: Population) -> jax.Array:
        return jax.lax.map(lambda flat: -value(flat, eta, pop).value.sum(), flats)

    function = cached(program, ("many", estimator), lambda: jax.jit(run))
    values = np.asarray(function(jnp.asarray(flats), jnp.asarray(fit.eta), session.pop))
    if not session.priors:
        return values
    return values - np.array([session.penalty(flat)[0] for flat in flats])
