"""Whether the likelihood is higher far from where a stochastic algorithm has ended: then it has not arrived."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from hierax.infer.boundary import exact_gain
from hierax.infer.objective import Evaluated
from hierax.infer.result import Result
from hierax.infer.session import Session

DECADE = np.log(10.0)
# Each parameter is moved by one decade both ways, and on by these where that changes little: a variance that started at
# 1e-6 has to grow by some decades before the likelihood feels it.
_FURTHER = np.arange(1.5, 8.5, 0.5)
# Step of the differences that give dθ/du.
_STEP = 1e-4
# How much higher the log likelihood has to be a decade away for a fit not to have arrived: at an estimate it is lower.
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
    """Return that the likelihood is higher where a bounded parameter is decades away, or None.

    The less the likelihood changes with a parameter, the shorter are the steps of EM and of stochastic gradients. From
    a start far off they may come to a stand long before an optimum.

    Parameters
    ----------
    out : Evaluated
        The objective at ``flat``.
    clearly : float
        How much higher it has to be.
    posterior : bool
        Whether the density of a posterior in unconstrained space is looked at, with the volume element of the map to
        the constrained one, and not the likelihood.
    """
    if not np.isfinite(np.asarray(out.value)).all():
        return None
    here = session.total(flat, out)

    def gain(entry: int, decades: float) -> float:
        at = _moved(flat, entry, decades)
        higher = here - session.total(at, session.value(at, out.eta))
        higher += _volume_gain(session, flat, at, entry) if posterior else 0.0
        return higher if np.isfinite(higher) else -np.inf

    best, where = clearly, (-1, 0.0)
    for entry in map(int, np.flatnonzero(free & session.layout.bounded() & ~session.layout.matrices())):
        for side in (-1.0, 1.0):
            found = gain(entry, side)
            places = [(found, side)]
            # On the way inwards alone: at the end of a range nothing changes any more.
            if abs(found) < clearly and side * flat[entry] < 0:
                places += [(gain(entry, side * further), side * further) for further in _FURTHER]
            for higher, decades in places:
                if higher > best:
                    best, where = higher, (entry, decades)
    entry, decades = where
    if entry < 0 or not _holds_exactly(session, flat, out, entry, decades, posterior):
        return None
    name = session.layout.names()[entry]
    return Result.not_optimal, (
        f"{Result.not_optimal.meaning}: by {best:.3g} where {name} alone is {abs(decades):g} decades "
        f"{'higher' if decades > 0 else 'lower'}. Steps have become too short to get there: start closer to the data "
        f"(init=), or from a fit by FOCE (init=hx.fit(model, pop, hx.FOCE()))"
    )


def _holds_exactly(
    session: Session, flat: np.ndarray, out: Evaluated, entry: int, decades: float, posterior: bool
) -> bool:
    """Return whether importance sampling agrees that the likelihood is higher there.

    The approximation by which the place was found may be too rough to tell.
    """
    at = _moved(flat, entry, decades)
    gain, error = exact_gain(session, (flat, out), (at, session.value(at, out.eta)))
    gain += session.penalty(flat)[0] - session.penalty(at)[0]
    gain += _volume_gain(session, flat, at, entry) if posterior else 0.0
    return not gain < 2 * error


def _moved(flat: np.ndarray, entry: int, decades: float) -> np.ndarray:
    """Return the flat vector with one entry moved."""
    return np.where(np.arange(flat.size) == entry, flat + decades * DECADE, flat)


def _volume_gain(session: Session, flat: np.ndarray, at: np.ndarray, entry: int) -> float:
    """Return by how much the log of dθ/du is larger at a place, θ being the parameter and u its unconstrained entry."""
    step = np.where(np.arange(flat.size) == entry, _STEP, 0.0)
    ends = session.layout.natural(np.array([at + step, at - step, flat + step, flat - step]))[:, entry]
    return float(np.log(np.abs(ends[0] - ends[1]) / np.abs(ends[2] - ends[3])))
