"""Options of the search over population parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from hierax.arguments import positive, whole
from hierax.options import Options


@dataclasses.dataclass(frozen=True)
class QuasiNewton(Options):
    """BFGS with backtracking, in coordinates scaled by the subjects' scores.

    Parameters
    ----------
    gtol : float
        The search has converged when the standardised gradient sqrt(gᵀS⁻¹g) is below this, where S is the sum of the
        outer products of the subjects' scores. It is the distance to the optimum in standard errors, whatever the units
        of the parameters.
    max_iter : int
        Limit on evaluations of the objective. Where a search has lost its way, looking for a better start may take as
        many again.
    max_step : float
        Longest step of a bounded parameter (positive, or in an interval) in unconstrained space. A longer step is
        halved before the objective is evaluated, so that a search stays in the valley that it starts in.

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
        Whether the search never looks for a better start, because it begins where another search has ended or is a part
        of another search.
    stay : bool
        Whether the search ends at once where objective or gradient is not finite at the start. Otherwise it looks for
        another start at which they are.
    far : float
        A start counts as absurd if its −log likelihood is higher than that of the end by more than this; another start
        is then tried too.
    own : callable, optional
        Returns the program's own start values, from which the given ones may differ. They are computed when needed.
    """

    once: bool = False
    stay: bool = False
    far: float = np.inf
    own: Callable[[], np.ndarray] | None = None
