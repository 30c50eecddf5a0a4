"""The number of a fit, which makes its random draws independent of those of other fits with the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hierax.infer.run.own_number import number_of

if TYPE_CHECKING:
    from hierax.results.fit import Evaluation


def own_number(fit: Evaluation) -> int:
    """Return a fit's number, with which its random draws are seeded (see ``hierax.infer.run.own_number``)."""
    return number_of(fit.program, fit.layout, fit.pop, fit.flat)
