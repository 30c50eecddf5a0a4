"""Options of the search over population parameters."""

from __future__ import annotations

import dataclasses

import numpy as np

from hierax.arguments import positive, whole
from hierax.options import Options


@dataclasses.dataclass(frozen=True)
class QuasiNewton(Options):
    """BFGS with backtracking, in coordinates scaled by the subjects' scores.

    Parameters
    ----------
    gtol : float
        Converged when the standardised gradient sqrt(gᵀS⁻¹g), S the sum of the subjects' score outer products, is
        below it: the distance to the optimum in standard errors, whatever the units of the parameters.
    max_iter : int
        Limit on evaluations. Looking for a better start, where a search has lost its way, may take as many once more.
    max_step : float
        Longest step of a bounded parameter (positive, in an interval) in unconstrained space: a longer one is halved
        before the objective is looked at, so that a search stays in the valley that it starts in.

    Examples
    --------
    >>> hx.FOCE(optimiser=hx.QuasiNewton(max_iter=100)).optimiser.max_iter
    100
    """

    gtol: float = 1e-4
    max_iter: int = 500
    max_step: float = 1.5

    def __post_init__(self) -> None:
        positive("gtol", self.gtol)
        whole("max_iter", self.max_iter, 1)
        positive("max_step", self.max_step)


@dataclasses.dataclass(frozen=True)
class Starting:
    """What a search may do about its start.

    Attributes
    ----------
    once : bool
        Whether it never looks for a better start: it begins where another search has ended, or is a part of one.
    stay : bool
        Whether a start without a value or gradient is the end, which is said, rather than left for one nearby.
    far : float
        A start is taken for absurd if its −log likelihood is higher than that of the end by more than this; then
        another one is looked for too.
    own : array, (parameter,), optional
        The start values of the program itself, where others were given.
    """

    once: bool = False
    stay: bool = False
    far: float = np.inf
    own: np.ndarray | None = None
