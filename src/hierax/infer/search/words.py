"""Texts that say how a search began and ended."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hierax.infer.result import Result
from hierax.infer.search.scaling import Point

# How messages name the start; a message that begins with these words leaves them out of the reason that it quotes.
AT_THE_START = " at the start values"


def without_bound(names: Sequence[str], entries: np.ndarray) -> str:
    """Return a text that names the parameters along which the likelihood grows without bound."""
    which = listed(names, entries)
    return (
        f"{Result.degenerate.meaning}: {which}. Some data are fitted exactly. Give that scale a prior, or hold it "
        f"(fixed=)"
    )


def not_felt(names: Sequence[str], entries: np.ndarray) -> str:
    """Return a text that names the parameters that were not estimated, as the objective does not depend on them."""
    return (
        f"the objective does not depend on {listed(names, entries)} at the start value, nor at values decades away "
        f"from it, so that nothing was estimated. Start elsewhere (init=), or hold it (fixed=)"
    )


def not_finite(point: Point, names: Sequence[str]) -> str:
    """Return a text that says whether the objective or its gradient is not finite at the start, and for which names."""
    if not np.isfinite(point.value):
        return f"the objective is not finite{AT_THE_START}"
    bad = ~np.isfinite(point.gradient)
    if point.scores is not None:
        bad |= ~np.isfinite(point.scores).all(-1)
    if not bad.any():
        return f"the gradient is too large to be squared{AT_THE_START}, which are too far from the data"
    which = "" if bad.all() else f": its derivative with respect to {listed(names, bad)} is not a number"
    return f"the objective is finite{AT_THE_START}, but its gradient is not{which}"


def started_elsewhere(why: str, names: Sequence[str], moved: np.ndarray) -> str:
    """Return a text that says that nothing could be computed at the start, and which parameters were moved from it."""
    return (
        f"At the start values {why.replace(AT_THE_START, '')}. The search therefore started where "
        f"{listed(names, moved)} {'is' if moved.sum() == 1 else 'are'} far from these values; give better start "
        f"values by init=."
    )


def listed(names: Sequence[str], entries: np.ndarray) -> str:
    """Return the names of the marked entries, with commas."""
    return ", ".join(name for name, one in zip(names, entries, strict=True) if one)
