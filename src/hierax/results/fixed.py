"""Evaluations at fixed parameters where a fit is expected: converted to a fit, or refused."""

from __future__ import annotations

import dataclasses

import numpy as np

from hierax.results.fit import Evaluation, Fit


def as_fit(result: Evaluation) -> Fit:
    """Return a fit itself, and an evaluation at fixed parameters as a fit that has estimated nothing."""
    if isinstance(result, Fit):
        return result
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(Evaluation)}
    size = result.flat.size
    why = "evaluated at fixed parameters; nothing was estimated"
    return Fit(**fields, free=np.zeros(size, bool), gradient=np.zeros(size), why=why)


def need_fit(result: Evaluation, purpose: str) -> None:
    """Refuse anything but a fit, because ``purpose`` needs estimates with their uncertainty.

    Raises
    ------
    ValueError
        The result is an evaluation, or was not returned by hierax.
    """
    if isinstance(result, Fit):
        return
    kind = type(result).__name__
    reason = ", which has parameters that were given and not estimated" if isinstance(result, Evaluation) else ""
    raise ValueError(
        f"{purpose} needs estimates with their uncertainty, but it was passed the {kind} that "
        f"{'hx.evaluate returns' if reason else 'is not a fit'}{reason}. Pass what hx.fit(model, pop, estimator) "
        f"returns."
    )
