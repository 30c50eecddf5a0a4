"""``hx.sir`` and ``hx.profile``: intervals that do not take the likelihood for quadratic."""

from __future__ import annotations

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy.optimize
import scipy.stats

from hierax.data.population import Population
from hierax.errors import HieraxWarning
from hierax.infer.objective import compiled_value
from hierax.infer.session import Session
from hierax.program.read import cached
from hierax.results.covariance import usable_covariance
from hierax.results.fit import Fit
from hierax.results.likelihood import pareto_k

_HIGH_K = 0.7


@dataclasses.dataclass(frozen=True, eq=False)
class SIR:
    """Draws of the parameters' uncertainty by sampling importance resampling.

    Attributes
    ----------
    draws : pandas.DataFrame
        Resampled parameter vectors, natural scale.
    ess, pareto_k : float
        Effective size of the weighted sample, and the shape of its weights' tail; above 0.7 it cannot be trusted.
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
    """Return draws from the likelihood as a density of the parameters, by weighting the asymptotic distribution's.

    Parameters
    ----------
    fit : Fit
        With a covariance and a marginal likelihood (its ``estimator``'s).
    n, samples : int
        Draws that are kept, and draws that are weighted.
    inflate : float
        SDs of the proposal, as a multiple of the asymptotic ones.
    seed : int
        Seed of both.

    Notes
    -----
    Dosne, Bergstrand, Harling & Karlsson (2016), J Pharmacokinet Pharmacodyn 43:583. The proposal is normal in
    unconstrained space.
    """
    if n < 1 or samples < max(n, 10):
        raise ValueError(f"sir(n={n}, samples={samples}) cannot resample. Weight more samples than are kept.")
    covariance = usable_covariance(fit, "resampled")
    active = np.flatnonzero(fit.free & ~fit.layout.weights())
    factor = inflate * np.linalg.cholesky(covariance.unconstrained.to_numpy())
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((samples, len(active)))
    flats = np.repeat(fit.flat[None], samples, axis=0)
    flats[:, active] += noise @ factor.T
    logs = _log_likelihoods(fit, flats) + 0.5 * (noise**2).sum(1)
    logs = np.where(np.isfinite(logs), logs, -np.inf)
    weights = np.exp(logs - logs.max())
    k = float(pareto_k(logs[None])[0])
    if k > _HIGH_K:
        warnings.warn(
            f"The weights of sir have a Pareto k of {k:.2f}, above {_HIGH_K}: the asymptotic distribution is too far "
            f"from the likelihood. Use a larger inflate=, more samples=, or bootstrap.",
            HieraxWarning,
            stacklevel=2,
        )
    picked = rng.choice(samples, n, p=weights / weights.sum())
    names = np.array(fit.layout.names())[active]
    draws = pd.DataFrame(fit.layout.natural(flats[picked])[:, active], columns=names)
    return SIR(draws, float(weights.sum() ** 2 / (weights**2).sum()), k)


def _log_likelihoods(fit: Fit, flats: np.ndarray) -> np.ndarray:
    """Return log L − penalty at many parameter vectors, one compiled loop."""
    program, estimator, session = fit.program, fit.estimator, fit.session
    value = compiled_value(program, estimator, fit.layout.unravel)

    def run(flats: jax.Array, eta: jax.Array, pop: Population) -> jax.Array:
        return jax.lax.map(lambda flat: -value(flat, eta, pop).value.sum(), flats)

    function = cached(program, ("many", estimator), lambda: jax.jit(run))
    values = np.asarray(function(jnp.asarray(flats), jnp.asarray(fit.eta), session.pop))
    if not session.priors:
        return values
    return values - np.array([session.penalty(flat)[0] for flat in flats])


@dataclasses.dataclass(frozen=True, eq=False)
class Profile:
    """The profile likelihood of one parameter.

    Attributes
    ----------
    name : str
    curve : pandas.DataFrame
        Value on the natural scale, and −2 log L above its minimum, all other parameters optimised at each.
    low, high : float
        Ends of the interval; the end of the range where the curve stays below the limit.
    """

    name: str
    curve: pd.DataFrame
    low: float
    high: float


def profile(fit: Fit, name: str, *, level: float = 0.95, reach: float = 6.0) -> Profile:
    """Return the profile-likelihood interval of one parameter.

    Parameters
    ----------
    fit : Fit
        By any estimator; what is profiled is the marginal likelihood by ``fit.estimator``, and after SAEM or VI from
        its optimum, which is near theirs.
    name : str
        An element's name, as in ``fit.summary()``: ``"cl"``, ``"omega[1]"``.
    level : float
        Level of the interval: −2 log L rises by the χ²(1) quantile.
    reach : float
        How many standard errors from the estimate the search goes at most.
    """
    names = fit.layout.names()
    if name not in names or not fit.free[names.index(name)]:
        free = [one for one, is_free in zip(names, fit.free, strict=True) if is_free]
        raise ValueError(f"profile of '{name}': there is no such free parameter. There are {free}.")
    index = names.index(name)
    limit = float(scipy.stats.chi2.ppf(level, 1))
    se = float(np.sqrt(usable_covariance(fit, "profiled").unconstrained.loc[name, name]))
    session = Session(fit.program, fit.estimator, fit.pop, fit.layout, fit.session.priors)
    free = fit.free.copy()
    free[index] = False
    top, eta, base = _optimum(fit, session)
    known = {0.0: (0.0, top, eta)}

    def rise(shift: float) -> float:
        """Return −2 log L above its minimum, that many SEs from the estimate."""
        if shift not in known:
            nearest = min(known, key=lambda other: abs(other - shift))
            start = known[nearest][1].copy()
            start[index] = top[index] + shift * se
            search = session.search(start, free, lambda row: None, known[nearest][2])
            end = start.copy()
            end[free] = search.x
            known[shift] = (2 * (search.point.value - base), end, search.point.state)
        return known[shift][0]

    ends = [_crossing(lambda s, side=side: rise(side * s) - limit, reach) * side for side in (-1, 1)]
    shifts = sorted(known)
    flats = np.array([known[shift][1] for shift in shifts])
    natural = fit.layout.natural(flats)[:, index]
    curve = pd.DataFrame({"value": natural, "rise of -2 log L": [known[shift][0] for shift in shifts]})
    if min(curve["rise of -2 log L"]) < -1e-3:
        warnings.warn(
            f"Along the profile of '{name}' -2 log L falls {-curve['rise of -2 log L'].min():.3g} below the fit's, so "
            f"that the fit was not at its lowest. Refit from there.",
            HieraxWarning,
            stacklevel=2,
        )
    low, high = (natural[shifts.index(end)] if np.isfinite(end) else np.nan for end in ends)
    return Profile(name, curve, float(low), float(high))


def _optimum(fit: Fit, session: Session) -> tuple[np.ndarray, np.ndarray, float]:
    """Return flat vector, modes and −log L + penalty at the top of the likelihood that is profiled.

    A fit by SAEM, VI or NUTS is near the optimum of its ``estimator``, not at it: the search goes on from there.
    """
    if fit.method is None:
        return fit.flat, fit.eta, float(fit.value[fit.rows].sum() + fit.penalty)
    search = session.search(fit.flat, fit.free, lambda row: None, fit.eta)
    top = fit.flat.copy()
    top[fit.free] = search.x
    return top, search.point.state, search.point.value


def _crossing(excess: object, reach: float) -> float:
    """Return where the function crosses 0 between 0 and ``reach``; NaN where it does not."""
    far = 2.0
    while excess(far) < 0:  # type: ignore[operator]
        if far >= reach:
            return np.nan
        far = min(far * 1.5, reach)
    # A thousandth of an SE is finer than an interval is read.
    return float(scipy.optimize.brentq(excess, far / 3 if excess(far / 3) < 0 else 0.0, far, xtol=1e-3))  # type: ignore[arg-type]
