"""The outcome of a fit that Ctrl-C has ended early."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hierax.infer.blocks import inverse_blocks
from hierax.infer.fitting.outcome import Outcome, evaluated_fields
from hierax.infer.marginal.estimator import Estimator
from hierax.infer.marginal.objective import Evaluated
from hierax.infer.marginal.session import Session
from hierax.infer.result import Result

if TYPE_CHECKING:
    from hierax.infer.fitting.job import Job

# The columns of a fit's history, which has no rows here.
_COLUMNS = ["start", "iteration", "ofv", "gradient", "step", "seconds"]


def known_of(session: Session, flat: np.ndarray, eta: Any = None) -> Evaluated:
    """Return the evaluation at a point if it is known, and else one of NaN."""
    if session.best is not None and np.array_equal(session.best[0], flat):
        return session.best[1]
    n, d = session.pop.n_subjects, len(session.program.effect_names)
    known = eta is not None and np.shape(eta) == (n, d)
    # A dictionary of Any, because NumPy arrays stand here for the JAX arrays that the fields are declared as.
    empty: dict[str, Any] = dict(
        value=np.full(n, np.nan),
        gradient=np.full(flat.size, np.nan),
        scores=None,
        eta=np.asarray(eta) if known else np.full((n, d), np.nan),
        hessian=np.full((n, d, d), np.nan),
        code=np.full(n, int(Result.interrupted)),
        iterations=np.array(0),
        joint=np.full(n, np.nan),
    )
    return Evaluated(**empty)


def interrupted(job: Job, objective: Estimator) -> Outcome:
    """Return the outcome at where the job's algorithm stands, or else at its best point, or else at its start."""
    session = job.sessions[-1] if job.sessions else job.session(objective)
    known: dict[str, Any] = {} if job.known is None else job.known()
    flat = known.pop("flat", None)
    if flat is None:
        flat = job.flat if session.best is None else session.best[0]
    flat = np.asarray(flat)
    out, moments = known_of(session, flat), known.get("moments")
    if moments is not None:
        out = out._replace(eta=moments[0], hessian=inverse_blocks(moments[1]))
    moved = not np.array_equal(flat, job.flat)
    return Outcome(
        **evaluated_fields(session, flat, out),
        penalty=session.penalty(flat)[0],
        result=Result.interrupted,
        why=f"{Result.interrupted.meaning}; the parameters are "
        + ("the best so far, and what was not computed yet is NaN" if moved else "the start values"),
        history=pd.DataFrame(columns=_COLUMNS),
        timing={"compile": session.compile_seconds, "search": 0.0, "evaluations": session.evaluations, "total": 0.0},
        extras=known,
    )
