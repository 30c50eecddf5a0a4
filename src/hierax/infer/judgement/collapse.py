"""Check whether a likelihood grows without bound along a parameter, so that there is no estimate of it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from hierax.infer.judgement.optimum import CLEARLY, DECADE
from hierax.infer.marginal.objective import Evaluated
from hierax.infer.marginal.session import Session
from hierax.infer.result import Result

# A parameter that the fit has moved by no more decades than this is not suspected.
_NEAR_DECADES = 0.7
# One that it has moved by more decades than this is followed back on the way that it has come; the others are followed
# onwards.
_FAR_DECADES = 5
# The profile likelihood is computed over this many decades. It grows without bound where each decade gains as much as
# the decade before it, up to this factor.
_DECADES, _ALIKE = 4, 1.4
# How many parameters are followed at most, because each of them takes a search for every decade.
_SUSPECTS = 3


def without_bound(
    session: Session,
    start: Float[np.ndarray, " parameter"],
    flat: Float[np.ndarray, " parameter"],
    out: Evaluated,
    free: Bool[np.ndarray, " parameter"],
) -> tuple[Result, str] | None:
    """Return result and reason if the likelihood grows without bound towards the end of a parameter's range, or None.

    The typical case is the SD of the residual error. Where n observations are fitted exactly, an SD that is ten times
    smaller makes each of them ten times as likely: the profile log likelihood gains n log(10) with every decade, and
    there is no maximum. Where a parameter merely tends to the end of its range (a variance to 0), the gains shrink from
    decade to decade. Every bounded parameter outside of matrices is a candidate.

    Parameters
    ----------
    start, flat : array, (parameter,)
        Where the fit began and where it ended, in unconstrained space.
    out : Evaluated
        The objective at ``flat``.
    free : array of bool, (parameter,)
        The parameters that vary.
    """
    if not np.isfinite(np.asarray(out.value)).all():
        return None
    names = session.layout.names()
    for entry, way in _suspects(session, start, flat, out, free)[:_SUSPECTS]:
        others = free.copy()
        others[entry] = False
        if _grows(_profile(session, flat, out.eta, others, entry, way)):
            return Result.degenerate, (
                f"{Result.degenerate.meaning}: {names[entry]}. Some data are fitted exactly. Give that scale a "
                f"prior, or hold it (fixed=)"
            )
    return None


def _suspects(
    session: Session, start: np.ndarray, flat: np.ndarray, out: Evaluated, free: np.ndarray
) -> list[tuple[int, np.ndarray]]:
    """Return the entries along which the likelihood may grow without bound, and where to compute their profile.

    Where to compute it is given as offsets from ``flat[entry]``, in the order of the search. An entry that has moved
    little is no suspect. One that has moved further is a suspect if the likelihood is clearly higher one decade further
    on, and is followed onwards. One that has moved over many decades, away from 0 in unconstrained space, is always a
    suspect. It is followed along the last decades of its way, because rounding errors may hide the gains where it
    stands. Entries of matrices are left out: a singular covariance is a boundary, and no likelihood without a maximum.
    """
    found = []
    here = session.total(flat, out)
    for entry in np.flatnonzero(free & session.layout.bounded() & ~session.layout.matrices()):
        moved = flat[entry] - start[entry]
        onward = np.sign(moved) * DECADE
        if abs(moved) > _FAR_DECADES * DECADE and moved * flat[entry] > 0:
            found.append((int(entry), -onward * np.arange(_DECADES, -1, -1)))
        elif abs(moved) > _NEAR_DECADES * DECADE:
            at = flat.copy()
            at[entry] += onward
            if here - session.total(at, session.value(at, out.eta)) > CLEARLY:
                found.append((int(entry), onward * np.arange(_DECADES + 1)))
    return found


def _profile(
    session: Session, flat: np.ndarray, eta: object, others: np.ndarray, entry: int, places: np.ndarray
) -> np.ndarray:
    """Return the objective with one entry held at places relative to where it is, and all others estimated anew."""
    values, at, modes = [], flat.copy(), eta
    for away in places:
        at[entry] = flat[entry] + away
        search = session.search(at, others, lambda row: None, modes, once=True)
        at, modes = at.copy(), search.point.state
        at[others] = search.x
        values.append(search.point.value)
    return np.array(values)


def _grows(values: np.ndarray) -> bool:
    """Return whether each decade gains as much as the decade before it.

    The first decade does not count, because the other parameters have yet to adapt to the held one.
    """
    gains = -np.diff(values)[1:]
    alike = gains[1:] / gains[:-1] if (gains > CLEARLY).all() else np.zeros(1)
    return bool(((alike > 1 / _ALIKE) & (alike < _ALIKE)).all())
