"""What a stochastic algorithm's end is worth: steps left out, chains without a density, parameters that never moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from hierax.infer.boundary import still_falling
from hierax.infer.collapse import without_bound
from hierax.infer.inert import unused_effects
from hierax.infer.objective import Evaluated
from hierax.infer.optimum import not_optimal
from hierax.infer.result import Result
from hierax.infer.saem_state import STEPS
from hierax.infer.session import Session


def subjects_without_density(log_density: Any, real: Any) -> Bool[np.ndarray, " subject"]:
    """Return which real subjects have no chain (or sample) with a finite log density, (subject,)."""
    return ~np.isfinite(np.asarray(log_density)).any(0) & np.asarray(real, bool)


def stopped_by(skipped: np.ndarray, iterations: int, lost: Bool[np.ndarray, " subject"], ids: Sequence[Any]) -> str:
    """Say why a run of SAEM cannot go on, or nothing.

    Parameters
    ----------
    skipped : array of int, (step,)
        Steps of each kind that were left out in the last so many ``iterations``.
    lost : array of bool, (subject,)
        Real subjects without a finite density, in the order of ``ids``.
    """
    if lost.any():
        first = ids[int(np.flatnonzero(lost)[0])]
        return f"no random effects were found at which the density of subject {first} is finite ({lost.sum()} in all)"
    dead = [name for name, count in zip(STEPS, skipped, strict=True) if iterations and count >= iterations]
    if dead:
        return f"of {iterations} iterations none had finite {' or '.join(dead)}, so that their parameters cannot move"
    return ""


def left_out(skipped: np.ndarray, iterations: int, stuck: Bool[np.ndarray, "chain subject"]) -> str:
    """Say which steps of a run were not finite and left out, and which chains stand where there is no density."""
    parts = [f"{count} of {iterations} {name}" for name, count in zip(STEPS, skipped, strict=True) if count]
    if stuck.any():
        parts.append(f"{stuck.sum()} of {stuck.size} chains")
    return f"; left out, for they were not finite: {', '.join(parts)}" if parts else ""


def unmoved(
    start: Float[np.ndarray, " parameter"],
    end: Float[np.ndarray, " parameter"],
    free: Bool[np.ndarray, " parameter"],
    names: Sequence[str],
) -> tuple[Result, str] | None:
    """Return that free parameters stand exactly where they started, or None.

    A stochastic algorithm moves everything that the data say something of: what has not moved was not estimated.
    """
    still = [name for name, one, other, may in zip(names, start, end, free, strict=True) if may and one == other]
    if not still:
        return None
    shown = ", ".join(still[:6]) + (", ..." if len(still) > 6 else "")
    return Result.did_not_move, (
        f"{shown} stayed exactly at the start value, so that nothing was estimated there: the data may not depend on "
        f"it, or its derivatives are no numbers. Look at hx.check, start elsewhere (init=), or hold it (fixed=)"
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
    """Return why a point where a stochastic algorithm has ended is no maximum of the likelihood, or None.

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
