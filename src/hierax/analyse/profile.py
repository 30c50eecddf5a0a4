"""``hx.profile``: the interval in which the likelihood, maximised over all other parameters, stays high."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import scipy.optimize
import scipy.special

from hierax.errors import tell
from hierax.infer.marginal.session import Session
from hierax.infer.result import Result
from hierax.results.fit import Fit
from hierax.results.fixed import need_fit

# The first step where there is no standard error to go by, in unconstrained space.
_FIRST = 0.25
# A standard error longer than this, in unconstrained space, is none: the parameter stands at the end of its range.
_LONG = 3.0
# The widest way from the estimate in unconstrained space, for parameters with bounds and in SEs for those without.
_WIDEST = 40.0
# An end is found where the rise of −2 log L is that close to the limit: a thousandth of an SE makes as much.
_CLOSE = 2e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Profile:
    """The profile likelihood of one parameter.

    Attributes
    ----------
    name : str
    curve : pandas.DataFrame
        Value on the natural scale, −2 log L above its minimum, all other parameters optimised at each, and how the
        search for these ended (``result``).
    low, high : float
        Ends of the interval. Where the curve stays below the limit as far as the range goes: the end of the range (0 or
        infinity for a positive parameter). NaN where no search on that side ended at an optimum.
    """

    name: str
    curve: pd.DataFrame
    low: float
    high: float


def profile(fit: Fit, name: str, *, level: float = 0.95, reach: float | None = None) -> Profile:
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
    reach : float, optional
        How far from the estimate the search goes at most, in unconstrained space and in standard errors where there are
        some. By default as far as it takes.

    Returns
    -------
    Profile

    Raises
    ------
    ValueError
        There is no such free parameter; names those that there are.

    Warns
    -----
    HieraxWarning
        Some values had no optimum of the other parameters, or −2 log L fell below the fit's.

    Notes
    -----
    The steps are chosen by the rise of −2 log L alone, so that a variance at 0, whose likelihood is not quadratic, has
    its interval too. There the level is the nominal one: with the truth at the boundary such intervals cover more.

    Examples
    --------
    >>> found = hx.profile(fit, 'rate')
    >>> bool(found.low < fit.params['rate'] < found.high)
    True
    """
    need_fit(fit, "profile")
    names = fit.layout.names()
    if name not in names or not fit.free[names.index(name)]:
        free = [one for one, is_free in zip(names, fit.free, strict=True) if is_free]
        raise ValueError(f"profile of '{name}': there is no such free parameter. There are {free}.")
    if not 0 < level < 1:
        raise ValueError(f"profile(level={level}) is no share. Give one between 0 and 1, such as 0.95.")
    if reach is not None and not reach > 0:
        raise ValueError(f"profile(reach={reach}) goes nowhere. Give a positive distance, or leave it out.")
    limit = 2 * float(scipy.special.gammaincinv(0.5, level))
    curve = _Curve(fit, names.index(name))
    step, widest = _first_step(fit, name), _widest(fit, name, reach)
    low, high = (_end(curve, side, step, widest, limit) for side in (-1, 1))
    curve.warn(name)
    return Profile(name, curve.table(), low, high)


class _Curve:
    """−2 log L above its minimum as a function of the distance from the estimate, in unconstrained space."""

    def __init__(self, fit: Fit, index: int):
        self.fit, self.index = fit, index
        self.session = Session(fit.program, fit.estimator, fit.pop, fit.layout, fit.session.priors)
        self.free = fit.free.copy()
        self.free[index] = False
        top, eta, base = _optimum(fit, self.session)
        self.top, self.base = top, base
        self.known: dict[float, tuple[float, np.ndarray, Any, Result]] = {0.0: (0.0, top, eta, Result.converged)}

    def rise(self, shift: float) -> float:
        """Return −2 log L above its minimum at that distance; NaN where the other parameters found no optimum."""
        if shift not in self.known:
            self.known[shift] = self._search(shift)
        value, _, _, result = self.known[shift]
        return value if result is Result.converged else np.nan

    def _search(self, shift: float) -> tuple[float, np.ndarray, Any, Result]:
        """Optimise the other parameters, from the nearest optimum that is known and, should that fail, the next."""
        good = [at for at, entry in self.known.items() if entry[3] is Result.converged]
        found = None
        for nearest in sorted(good, key=lambda other: abs(other - shift))[:2]:
            start = self.known[nearest][1].copy()
            start[self.index] = self.top[self.index] + shift
            search = self.session.search(start, self.free, lambda row: None, self.known[nearest][2], once=True)
            end = start.copy()
            end[self.free] = search.x
            found = 2 * (search.point.value - self.base), end, search.point.state, search.result
            if search.result is Result.converged:
                break
        assert found is not None
        return found

    def natural(self, shift: float) -> float:
        """Return the parameter's value at a distance; the end of its range at an infinite one."""
        flat = self.top.copy()
        flat[self.index] += shift
        return float(self.fit.layout.natural(flat[None])[0, self.index])

    def table(self) -> pd.DataFrame:
        """Return everything that was looked at, in order."""
        shifts = sorted(self.known)
        return pd.DataFrame(
            {
                "value": [self.natural(shift) for shift in shifts],
                "rise of -2 log L": [self.known[shift][0] for shift in shifts],
                "result": [self.known[shift][3].name for shift in shifts],
            }
        )

    def warn(self, name: str) -> None:
        """Say what of the curve cannot be trusted."""
        table = self.table()
        failed = table[table["result"] != Result.converged.name]
        if len(failed):
            tell(
                f"Along the profile of '{name}' the other parameters found no optimum at {len(failed)} of {len(table)} "
                f"values ({failed['result'].value_counts().to_dict()}), which count for nothing, so that the interval "
                f"may be off. Give the fit's estimator more iterations (optimiser=hx.QuasiNewton(max_iter=...)).",
            )
        lowest = table.loc[table["result"] == Result.converged.name, "rise of -2 log L"].min()
        if lowest < -1e-3:
            tell(
                f"Along the profile of '{name}' -2 log L falls {-lowest:.3g} below the fit's, so that the fit was not "
                f"at its lowest. Refit from there.",
            )


def _first_step(fit: Fit, name: str) -> float:
    """Return the standard error in unconstrained space where it means something, else a quarter."""
    covariance = fit.covariance("hessian").unconstrained
    if name not in covariance.index:
        return _FIRST
    se = float(np.sqrt(covariance.loc[name, name]))
    return se if 0 < se < _LONG else _FIRST


def _widest(fit: Fit, name: str, reach: float | None) -> float:
    index, step = fit.layout.names().index(name), _first_step(fit, name)
    if reach is not None:
        return reach * step
    return _WIDEST if fit.layout.bounded()[index] else _WIDEST * step


def _optimum(fit: Fit, session: Session) -> tuple[np.ndarray, np.ndarray, float]:
    """Return flat vector, modes and −log L + penalty at the top of the likelihood that is profiled.

    A fit by SAEM, VI or NUTS is near the optimum of its ``estimator``, not at it, and neither is one that has not
    converged: the search goes on from there.
    """
    if fit.method is None and fit.result is Result.converged:
        return fit.flat, fit.eta, float(fit.value[fit.rows].sum() + fit.penalty)
    search = session.search(fit.flat, fit.free, lambda row: None, fit.eta, once=True)
    top = fit.flat.copy()
    top[fit.free] = search.x
    return top, search.point.state, search.point.value


def _end(curve: _Curve, side: int, step: float, widest: float, limit: float) -> float:
    """Return where the curve crosses the limit on one side, on the natural scale."""

    def excess(shift: float) -> float:
        return curve.rise(side * shift) - limit

    inside, outside = 0.0, 2 * step
    while not excess(outside) > 0:
        if np.isnan(excess(outside)):
            return _failed(curve, side, excess, inside, outside)
        inside = outside
        if outside >= widest:
            # The curve stays below the limit to the end of the range.
            return curve.natural(side * np.inf)
        outside = min(2 * outside, widest)
    return curve.natural(side * _crossing(excess, inside, outside))


def _failed(curve: _Curve, side: int, excess: Callable[[float], float], inside: float, outside: float) -> float:
    """Return the crossing between the last good value and nearer ones than the one that failed, or NaN."""
    for share in (0.75, 0.5, 0.25):
        between = inside + share * (outside - inside)
        if excess(between) > 0:
            return curve.natural(side * _crossing(excess, inside, between))
    return np.nan


def _crossing(excess: Callable[[float], float], inside: float, outside: float) -> float:
    """Return where the function crosses 0, to within a small rise; NaN where values on the way could not be found."""
    import scipy.optimize

    def near(shift: float) -> float:
        value = excess(shift)
        if np.isnan(value):
            raise FloatingPointError
        return 0.0 if abs(value) < _CLOSE else value

    try:
        return float(scipy.optimize.brentq(near, inside, outside, xtol=1e-9))  # type: ignore[arg-type]
    except FloatingPointError:
        return np.nan
