"""Early stopping: the marginal likelihood of subjects that a fit does not see, watched while it runs."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from hierax.data.population import Population
from hierax.infer.marginal.estimator import Estimator
from hierax.infer.marginal.laplace import Laplace
from hierax.infer.marginal.session import session_of
from hierax.program.density import Program


class HeldOut:
    """Held-out subjects, and how likely the best parameters so far make them.

    Attributes
    ----------
    rows : list of float
        Log likelihood at every evaluation, by Laplace's approximation where there are random effects.
    best : array, (parameter,), or None
        The parameters at which it was highest.
    """

    WHY: ClassVar[str] = "the likelihood of the held-out subjects no longer rises"

    def __init__(self, program: Program, pop: Population, estimator: Estimator, patience: int):
        self.session = session_of(program, pop, Laplace() if program.sites.effects else estimator)
        self.patience = patience
        self.rows: list[float] = []
        self.best: np.ndarray | None = None
        self._eta: Any = None
        self._begun = 0

    def begin(self) -> None:
        """Count looks without progress from now on, because a new search may find what the last one has not."""
        self._begun = len(self.rows)

    def look(self, flat: Any) -> bool:
        """Evaluate the held-out subjects at some parameters; return whether these are the best so far."""
        out = self.session.value(flat, self._eta)
        eta = np.asarray(out.eta)
        if self.session.grids is not None:
            # Grids are placed anew, where that is needed, for the next look, when the parameters will have moved on.
            self.session.watch(np.asarray(flat), eta)
        # NaN stands for no warm start, which an infinite mode cannot be either.
        self._eta = np.where(np.isfinite(eta), eta, np.nan) if eta.size else None
        real = np.asarray(self.session.pop.subject_mask)
        value = -float(np.asarray(out.value)[real].sum())
        better = np.isfinite(value) and (self.best is None or value > max(self.rows))
        self.rows.append(value if np.isfinite(value) else -np.inf)
        if better:
            self.best = np.array(flat)
        return bool(better)

    @property
    def enough(self) -> bool:
        """Whether the last ``patience`` looks have brought no progress."""
        since = max(int(np.argmax(self.rows)) + 1, self._begun) if self.rows else 0
        return len(self.rows) - since >= self.patience

    def state(self) -> dict[str, np.ndarray]:
        """Return what a checkpoint holds."""
        best = np.zeros(0) if self.best is None else self.best
        eta = np.zeros(0) if self._eta is None else self._eta
        return {"rows": np.array(self.rows, float), "best": best, "eta": eta}

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        """Go on where a saved fit stood."""
        self.rows = np.asarray(saved["rows"]).tolist()
        self.best = np.asarray(saved["best"]) if np.size(saved["best"]) else None
        self._eta = np.asarray(saved["eta"]) if np.size(saved["eta"]) else None
