"""Early stopping: the marginal likelihood of subjects that a fit does not see, watched while it runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from hierax.data.population import Population
from hierax.infer.estimator import Estimator
from hierax.infer.laplace import Laplace
from hierax.infer.objective import read_program
from hierax.infer.session import Session
from hierax.program.density import Program
from hierax.program.parameters import layout


class HeldOut:
    """Held-out subjects, and how likely the best parameters so far make them.

    Attributes
    ----------
    rows : list of float
        Log likelihood at every look, by Laplace's approximation.
    best : array, (parameter,), or None
        Where it was highest.
    """

    def __init__(self, program: Program, pop: Population, estimator: Estimator, patience: int):
        if patience < 1:
            raise ValueError(f"patience={patience} stops a fit before it begins. Give 1 or more looks, 5 say.")
        held_out = read_program(program.model, pop, program.plate, checked=False)
        objective = Laplace() if held_out.sites.effects else estimator
        self.session = Session(held_out, objective, pop, layout(held_out))
        self.patience = patience
        self.rows: list[float] = []
        self.best: np.ndarray | None = None
        self._eta: Any = None

    def look(self, flat: Any) -> bool:
        """Look at some parameters; return whether they are the best so far."""
        out = self.session.value(flat, self._eta)
        eta = np.asarray(out.eta)
        if self.session.grids is not None:
            # For the next look: the parameters will have moved on.
            self.session.watch(np.asarray(flat), eta)
        self._eta = np.where(np.isfinite(eta), eta, np.nan) if eta.size else None
        real = np.asarray(self.session.pop.subject_mask)
        value = -float(np.asarray(out.value)[real].sum())
        better = np.isfinite(value) and (self.best is None or value > np.nanmax(self.rows))
        self.rows.append(value if np.isfinite(value) else -np.inf)
        if better:
            self.best = np.array(flat)
        return bool(better)

    @property
    def enough(self) -> bool:
        """Whether the last looks, as many as there is patience for, have brought nothing."""
        return len(self.rows) - 1 - int(np.argmax(self.rows)) >= self.patience if self.rows else False

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


WHY = "the likelihood of the held-out subjects no longer rises"
