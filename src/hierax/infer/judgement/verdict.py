"""Check where a stochastic algorithm has ended: parameters that never moved, and points that are no maximum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from hierax.infer.judgement.boundary import still_falling
from hierax.infer.judgement.collapse import without_bound
from hierax.infer.judgement.inert import unused_effects
from hierax.infer.judgement.optimum import not_optimal
from hierax.infer.marginal.objective import Evaluated
from hierax.infer.marginal.session import Session
from hierax.infer.result import Result


def unmoved(
    start: Float[np.ndarray, " parameter"],
    end: Float[np.ndarray, " parameter"],
    free: Bool[np.ndarray, " parameter"],
    names: Sequence[str],
) -> tuple[Result, str] | None:
    """Return result and reason if free parameters stand exactly where they started, or None.

    A stochastic algorithm moves every parameter about which the data say anything, so that one that has not moved was
    not estimated.
    """
    still = [name for name, one, other, may in zip(names, start, end, free, strict=True) if may and one == other]
    if not still:
        return None
    shown = ", ".join(still[:6]) + (", ..." if len(still) > 6 else "")
    return Result.did_not_move, (
        f"{shown} stayed exactly at the start value, so that nothing was estimated there: the data may not depend on "
        f"it, or its derivatives may not be finite. Look at hx.check, start elsewhere (init=), or hold it (fixed=)"
    )


def not_arrived(
    session: Session,
    start: Float[np.ndarray, " parameter"],
    flat: Float[np.ndarray, " parameter"],
    out: Evaluated,
    free: Bool[np.ndarray, " parameter"],
    variances: Bool[np.ndarray, " parameter"],
    *,
    stopped_early: bool = False,
) -> tuple[Result, str] | None:
    """Return result and reason if a stochastic algorithm has not ended at a maximum of the likelihood, or None.

    Parameters
    ----------
    start, flat : array, (parameter,)
        Where the algorithm began and where it ended, in unconstrained space.
    out : Evaluated
        The objective at ``flat``.
    free, variances : array of bool, (parameter,)
        The parameters that vary, and those of them that belong to the distribution of random effects.
    stopped_early : bool
        Whether held-out subjects ended the algorithm, which then need not stand at a maximum.
    """
    return (
        without_bound(session, start, flat, out, free)
        or unused_effects(session, flat, out)
        or still_falling(session, flat, out, variances)
        or (None if stopped_early else not_optimal(session, flat, out, free))
    )
