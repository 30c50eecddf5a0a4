"""Steps that a run of SAEM left out because they were not finite, and whether the run can go on without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from hierax.infer.saem.state import STEPS


def subjects_without_density(log_density: Any, real: Any) -> Bool[np.ndarray, " subject"]:
    """Return which real subjects have no chain (or sample) with a finite log density, (subject,)."""
    return ~np.isfinite(np.asarray(log_density)).any(0) & np.asarray(real, bool)


def stopped_by(skipped: np.ndarray, iterations: int, lost: Bool[np.ndarray, " subject"], ids: Sequence[Any]) -> str:
    """Say why a run of SAEM cannot go on; empty if it can.

    Parameters
    ----------
    skipped : array of int, (step,)
        How many steps of each kind were left out in the last ``iterations``.
    lost : array of bool, (subject,)
        Real subjects without a finite density, in the order of ``ids``.
    """
    if lost.any():
        first = ids[int(np.flatnonzero(lost)[0])]
        return (
            f"no random effects were found at which the density of subject {first} is finite ({lost.sum()} such "
            f"subjects in all)"
        )
    dead = [name for name, count in zip(STEPS, skipped, strict=True) if iterations and count >= iterations]
    if dead:
        return (
            f"none of the last {iterations} iterations had finite {' or '.join(dead)}, so that the parameters that "
            f"these move were not estimated"
        )
    return ""


def left_out(skipped: np.ndarray, iterations: int, stuck: Bool[np.ndarray, "chain subject"]) -> str:
    """Say how many steps of a run were left out, and how many chains stand where the density is not finite."""
    parts = [f"{count} of {iterations} {name}" for name, count in zip(STEPS, skipped, strict=True) if count]
    if stuck.any():
        parts.append(f"{stuck.sum()} of {stuck.size} chains")
    return f"; left out because they were not finite: {', '.join(parts)}" if parts else ""
