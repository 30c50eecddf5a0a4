"""Check whether the likelihood is higher far from where a stochastic algorithm ended, short of an optimum."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from hierax.infer.judgement.boundary import exact_gain
from hierax.infer.marginal.objective import Evaluated
from hierax.infer.marginal.session import Session
from hierax.infer.result import Result

# A factor of ten in units of a logarithm, the unconstrained scale of a positive parameter.
DECADE = np.log(10.0)
# A bounded parameter is moved by one decade both ways. Where that changes little it is also moved inwards by these
# numbers of decades: a variance that started at 1e-6 has to grow by some decades before it changes the likelihood.
_FURTHER = np.arange(1.5, 8.5, 0.5)
# A parameter without bounds is moved by its absolute value, and at least by this much.
_UNIT = 1.0
# Step of the differences that give dθ/du.
_STEP = 1e-4
# A fit has not arrived if the log likelihood a decade away is higher by more than this; at an estimate it is lower.
CLEARLY = 0.2


def not_optimal(
    session: Session,
    flat: Float[np.ndarray, " parameter"],
    out: Evaluated,
    free: Bool[np.ndarray, " parameter"],
    clearly: float = CLEARLY,
    *,
    posterior: bool = False,
) -> tuple[Result, str] | None:
    """Return result and reason if the likelihood is higher where one parameter is moved far away, or None.

    A bounded parameter is moved by decades, one without bounds by its absolute value and at least by 1. The less the
    likelihood changes with a parameter, the shorter are the steps of EM and of stochastic gradients. From a start far
    off such an algorithm may come to a stand long before an optimum. The same happens on the way to an optimum at
    infinity (the logit of a probability where all answers are yes).

    Parameters
    ----------
    out : Evaluated
        The objective at ``flat``.
    clearly : float
        By how much the log likelihood has to be higher to count.
    posterior : bool
        Whether to compare not the likelihood but the posterior density in unconstrained space, which includes the
        volume element of the map to constrained space.
    """
    if not np.isfinite(np.asarray(out.value)).all():
        return None
    here = session.total(flat, out)

    def gain(entry: int, by: float) -> float:
        at = _moved(flat, entry, by)
        higher = here - session.total(at, session.value(at, out.eta))
        higher += _volume_gain(session, flat, at, entry) if posterior else 0.0
        return higher if np.isfinite(higher) else -np.inf

    best, where = clearly, (-1, 0.0)
    bounded = session.layout.bounded()
    looked_at = free & ~session.layout.joint()
    for entry in map(int, np.flatnonzero(looked_at if not posterior else looked_at & bounded)):
        unit = DECADE if bounded[entry] else max(abs(float(flat[entry])), _UNIT)
        for side in (-unit, unit):
            found = gain(entry, side)
            places = [(found, side)]
            # Only inwards, because towards the end of a range nothing changes any more.
            if bounded[entry] and abs(found) < clearly and side * flat[entry] < 0:
                places += [(gain(entry, side * further), side * further) for further in _FURTHER]
            for higher, by in places:
                if higher > best:
                    best, where = higher, (entry, by)
    entry, by = where
    if entry < 0 or not _holds_exactly(session, flat, out, entry, by, posterior):
        return None
    name, way = session.layout.names()[entry], "higher" if by > 0 else "lower"
    place = (
        f"{abs(by) / DECADE:g} decades {way}"
        if bounded[entry]
        else f"{flat[entry] + by:.3g} (and not {flat[entry]:.3g})"
    )
    return Result.not_optimal, (
        f"{Result.not_optimal.meaning}: it is higher by {best:.3g} where {name} alone is {place}. The steps of the "
        f"algorithm have become too short to get there: start closer to the data (init=), or from a fit by FOCE "
        f"(init=hx.fit(model, pop, hx.FOCE())). If the likelihood is higher still further away, it has no maximum: "
        f"give a prior"
    )


def _holds_exactly(session: Session, flat: np.ndarray, out: Evaluated, entry: int, by: float, posterior: bool) -> bool:
    """Return whether importance sampling confirms that the likelihood is higher with the entry moved.

    The approximation by which that place was found may be too rough to tell.
    """
    at = _moved(flat, entry, by)
    gain, error = exact_gain(session, (flat, out), (at, session.value(at, out.eta)))
    gain += session.penalty(flat)[0] - session.penalty(at)[0]
    gain += _volume_gain(session, flat, at, entry) if posterior else 0.0
    return not gain < 2 * error


def _moved(flat: np.ndarray, entry: int, by: float) -> np.ndarray:
    """Return the flat vector with one entry moved."""
    return np.where(np.arange(flat.size) == entry, flat + by, flat)


def _volume_gain(session: Session, flat: np.ndarray, at: np.ndarray, entry: int) -> float:
    """Return by how much log dθ/du is larger at ``at`` than at ``flat``, for parameter θ and unconstrained entry u."""
    step = np.where(np.arange(flat.size) == entry, _STEP, 0.0)
    ends = session.layout.natural(np.array([at + step, at - step, flat + step, flat - step]))[:, entry]
    return float(np.log(np.abs(ends[0] - ends[1]) / np.abs(ends[2] - ends[3])))
