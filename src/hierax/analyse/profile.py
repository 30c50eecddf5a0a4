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
from hierax.infer.marginal.session import Session, placed
from hierax.infer.result import Result
from hierax.results.fit import Fit
from hierax.results.fixed import need_fit

# The scale of the search steps, in unconstrained space, where the parameter has no usable standard error.
_DEFAULT_STEP = 0.25
# A standard error above this, in unconstrained space, is not used: the parameter is at the end of its range then.
_LARGEST_SE = 3.0
# The search goes at most this far from the estimate: in unconstrained space for a parameter with bounds, in standard
# errors for one without.
_WIDEST = 40.0
# An end of the interval is found where the rise of −2 log L is this close to the limit. Moving the end by a thousandth
# of an SE changes the rise by about as much.
_TOLERANCE = 2e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Profile:
    """The profile likelihood of one parameter.

    Attributes
    ----------
    name : str
        The parameter.
    curve : pandas.DataFrame
        One row per value that was tried: the value on the natural scale, the rise of −2 log L above its minimum with
        all other parameters optimised, and how the search for these ended (``result``).
    low, high : float
        Ends of the interval. Where the curve stays below the limit on one side, the end is that of the parameter's
        range (0 or infinity for a positive parameter). NaN where the search for the other parameters failed, so that
        the end could not be found.
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
        By any estimator. The marginal likelihood by ``fit.approximation`` is profiled. After SAEM or VI, its optimum is
        searched first, because it is near their estimates but not at them.
    name : str
        An element's name, as in ``fit.summary()``: ``"cl"``, ``"omega[1]"``.
    level : float
        Level of the interval: −2 log L rises by the χ²(1) quantile.
    reach : float, optional
        Largest distance from the estimate that the search covers, in unconstrained space, as a multiple of the standard
        error (of 0.25 where there is none). By default the search ends where the interval does.

    Returns
    -------
    Profile

    Raises
    ------
    ValueError
        There is no such free parameter (the message names those that there are), or ``level`` or ``reach`` is invalid.

    Warns
    -----
    HieraxWarning
        At some values the search for the other parameters failed, or −2 log L fell below the fit's.

    Notes
    -----
    The search depends on the rise of −2 log L alone, so that a variance estimated at 0, where the likelihood is not
    quadratic, has an interval too. Its level is nominal: where the true value is at the boundary, such intervals cover
    it more often.

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
        raise ValueError(f"profile(level={level}) must be a confidence level between 0 and 1, such as 0.95.")
    if reach is not None and not reach > 0:
        raise ValueError(
            f"profile(reach={reach}) must be a positive number of standard errors. Give one, or leave it out."
        )
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
        self.session = Session(fit.program, fit.approximation, fit.pop, fit.layout, fit.session.priors)
        self.free = fit.free.copy()
        self.free[index] = False
        top, eta, base = _optimum(fit, self.session)
        self.top, self.base = top, base
        self.known: dict[float, tuple[float, np.ndarray, Any, Result]] = {0.0: (0.0, top, eta, Result.converged)}

    def rise(self, shift: float) -> float:
        """Return −2 log L above its minimum at a distance; NaN where the search for the other parameters failed."""
        if shift not in self.known:
            self.known[shift] = self._search(shift)
        value, _, _, result = self.known[shift]
        return value if result is Result.converged else np.nan

    def _search(self, shift: float) -> tuple[float, np.ndarray, Any, Result]:
        """Optimise the other parameters, from the nearest known optimum or, if that fails, from the second nearest."""
        good = [at for at, entry in self.known.items() if entry[3] is Result.converged]
        found = None
        for nearest in sorted(good, key=lambda other: abs(other - shift))[:2]:
            start = self.known[nearest][1].copy()
            start[self.index] = self.top[self.index] + shift
            search = self.session.search(start, self.free, lambda row: None, self.known[nearest][2], once=True)
            end = placed(start, self.free, search.x)
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
        """Return all values that were tried, in increasing order."""
        shifts = sorted(self.known)
        return pd.DataFrame(
            {
                "value": [self.natural(shift) for shift in shifts],
                "rise of -2 log L": [self.known[shift][0] for shift in shifts],
                "result": [self.known[shift][3].name for shift in shifts],
            }
        )

    def warn(self, name: str) -> None:
        """Warn of values at which the search failed, and of a curve that falls below the fit's −2 log L."""
        table = self.table()
        failed = table[table["result"] != Result.converged.name]
        if len(failed):
            tell(
                f"In the profile of '{name}', the fit of the other parameters did not converge at {len(failed)} of "
                f"{len(table)} values ({failed['result'].value_counts().to_dict()}). These values are left out, so "
                f"that the interval may be inaccurate. Give the fit's estimator more iterations "
                f"(optimiser=hx.QuasiNewton(max_iter=...)).",
            )
        lowest = table.loc[table["result"] == Result.converged.name, "rise of -2 log L"].min()
        if lowest < -1e-3:
            tell(
                f"In the profile of '{name}', -2 log L falls {-lowest:.3g} below that of the fit, so that the fit is "
                f"not at its optimum. Refit with init= at the value of '{name}' with the lowest -2 log L.",
            )


def _first_step(fit: Fit, name: str) -> float:
    """Return the parameter's standard error in unconstrained space if it is usable, else a default."""
    covariance = fit.covariance("hessian").unconstrained
    if name not in covariance.index:
        return _DEFAULT_STEP
    se = float(np.sqrt(covariance.loc[[name], [name]].to_numpy()[0, 0]))
    return se if 0 < se < _LARGEST_SE else _DEFAULT_STEP


def _widest(fit: Fit, name: str, reach: float | None) -> float:
    index, step = fit.layout.names().index(name), _first_step(fit, name)
    if reach is not None:
        return reach * step
    return _WIDEST if fit.layout.bounded()[index] else _WIDEST * step


def _optimum(fit: Fit, session: Session) -> tuple[np.ndarray, np.ndarray, float]:
    """Return flat vector, modes and −log L + penalty at the maximum of the likelihood that is profiled.

    A fit by SAEM, VI or NUTS is near this maximum but not at it, and neither is a fit that has not converged. In these
    cases the maximum is searched, starting at the estimate.
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
            # The curve stays below the limit throughout the range.
            return curve.natural(side * np.inf)
        outside = min(2 * outside, widest)
    return curve.natural(side * _crossing(excess, inside, outside))


def _failed(curve: _Curve, side: int, excess: Callable[[float], float], inside: float, outside: float) -> float:
    """Return the crossing between the last good value and one nearer to it than the one that failed, or NaN."""
    for share in (0.75, 0.5, 0.25):
        between = inside + share * (outside - inside)
        if excess(between) > 0:
            return curve.natural(side * _crossing(excess, inside, between))
    return np.nan


def _crossing(excess: Callable[[float], float], inside: float, outside: float) -> float:
    """Return where the function crosses 0, to within a tolerance; NaN where it is NaN on the way."""
    import scipy.optimize

    def near(shift: float) -> float:
        value = excess(shift)
        if np.isnan(value):
            raise FloatingPointError
        return 0.0 if abs(value) < _TOLERANCE else value

    try:
        return float(scipy.optimize.brentq(near, inside, outside, xtol=1e-9))  # type: ignore[arg-type]
    except FloatingPointError:
        return np.nan
