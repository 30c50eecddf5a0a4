"""The number that belongs to a fit alone, by which its random draws are told from those of other fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hierax.infer.run.own_number import number_of

if TYPE_CHECKING:
    from hierax.results.fit import Evaluation


def own_number(fit: Evaluation) -> int:
    """Return the number that tells the random draws of a fit from those of others (``hierax.infer.run.own_number``)."""
    return number_of(fit.program, fit.layout, fit.pop, fit.flat)
