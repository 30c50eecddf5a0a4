"""Check whether a variance of random effects is still on its way to 0 where a stochastic algorithm has ended."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from hierax.infer.marginal.importance import ImportanceSampling, importance_sample
from hierax.infer.marginal.objective import Evaluated
from hierax.infer.marginal.session import Session
from hierax.infer.result import Result
from hierax.program.read import cached

# The likelihood is evaluated with the standard deviation divided by each of these.
_FACTORS = (3.0, 30.0)
# A variance is still falling if the log likelihood gains more than this on the way to 0; with less left to gain it has
# arrived for all purposes.
_GAIN = 0.01
# How the exact likelihood is estimated where the approximation rises towards 0.
_SAMPLES = ImportanceSampling(2000)


def still_falling(
    session: Session, flat: Float[np.ndarray, " parameter"], out: Evaluated, free: Bool[np.ndarray, " parameter"]
) -> tuple[Result, str] | None:
    """Return result and reason if variances are still on their way to 0, else None; see :func:`falling`."""
    down = falling(session, flat, out, free)
    if not down:
        return None
    return Result.falling_to_boundary, (
        f"{Result.falling_to_boundary.meaning}: {', '.join(down)}. The likelihood is highest at a variance of 0, "
        f"which the iterations approach ever more slowly: leave out that random effect, or fit by FOCE, which "
        f"reaches 0"
    )


def falling(
    session: Session, flat: Float[np.ndarray, " parameter"], out: Evaluated, free: Bool[np.ndarray, " parameter"]
) -> list[str]:
    """Return the names of SDs of random effects along which the likelihood rises all the way to 0.

    The closer a variance is to 0, the shorter EM's steps become, so that no number of iterations brings it there. The
    session's approximation of the likelihood is evaluated first; where it rises, importance sampling decides.
    """
    if not free.any() or not np.isfinite(np.asarray(out.value)).all():
        return []
    sd = _prior_sd(session, flat, out.eta)
    found = []
    for entry in np.flatnonzero(free):
        lower = [np.where(np.arange(flat.size) == entry, flat - np.log(factor), flat) for factor in _FACTORS]
        if not _scales(sd, _prior_sd(session, lower[0], out.eta)):
            continue
        ends = [session.value(at, out.eta) for at in lower]
        totals = [float(np.asarray(one.value).sum()) for one in (out, *ends)]
        if totals[0] - totals[1] > 0 and totals[1] >= totals[2] and totals[0] - totals[2] > _GAIN:
            gain, error = exact_gain(session, (flat, out), (lower[1], ends[1]))
            if gain > _GAIN + 2 * error:
                found.append(session.layout.names()[entry])
    return found


def _prior_sd(session: Session, flat: np.ndarray, eta: Any) -> np.ndarray:
    program = session.program
    function = cached(program, "prior_sd", lambda: jax.jit(program.prior_scale))
    return np.asarray(function(session.pop, session.layout.params(flat), eta))


def _scales(sd: np.ndarray, lower: np.ndarray) -> bool:
    """Return whether some random effect's SD has shrunk by the first of the factors, for every subject."""
    ratio = np.divide(lower, sd, out=np.ones_like(sd), where=sd > 0)
    return bool((np.abs(ratio * _FACTORS[0] - 1) < 1e-6).all(0).any())


def exact_gain(
    session: Session, here: tuple[np.ndarray, Evaluated], there: tuple[np.ndarray, Evaluated]
) -> tuple[float, float]:
    """Return by how much the log likelihood is higher at ``there`` than at ``here``, and the Monte-Carlo error.

    Both are estimated with the same random numbers, so that most of their noise is common and drops out of the
    difference.
    """
    rows = np.flatnonzero(np.asarray(session.pop.subject_mask))
    (low, shares), (high, others) = (_importance(session, *one) for one in (here, there))
    variance = (others - shares).var(-1) / shares.shape[-1]
    return float((high - low)[rows].sum()), float(np.sqrt(variance[rows].sum()))


def _importance(session: Session, flat: np.ndarray, out: Evaluated) -> tuple[np.ndarray, np.ndarray]:
    """Return each subject's log likelihood, and its samples' weights relative to their mean, (subject, sample)."""
    covariance = np.linalg.inv(np.asarray(out.hessian))
    params = session.layout.params(flat)
    logs = importance_sample(session.program, session.pop, params, out.eta, covariance, _SAMPLES, 0)
    top = logs.max(-1, keepdims=True)
    weights = np.exp(logs - top)
    mean = weights.mean(-1, keepdims=True)
    return (np.log(mean) + top)[:, 0], weights / mean
