"""Check of a fit through a flow: its approximate likelihood is compared with that by importance sampling.

A flow can deform the distribution of random effects until the approximation overestimates a subject's integral, because
the density at the mode and its curvature there need not represent the rest of the distribution. The approximate
likelihood then rises during the fit while the true likelihood falls.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from hierax.errors import tell
from hierax.infer.blocks import inverse_blocks
from hierax.infer.marginal.importance import ImportanceSampling, importance_sample
from hierax.infer.result import Result
from hierax.results.fit import Fit
from hierax.results.likelihood import weight_table
from hierax.results.uncertainty.own_number import own_number

# The wide t proposals cover the tails, and a second mode, that posteriors through a flow may have.
_SAMPLING = ImportanceSampling(2000, proposal="t", scale=1.6)
# A fall of the log likelihood counts only above this many Monte-Carlo standard errors, and above this many nats.
_SE_MULTIPLE, _NATS = 3.0, 0.1
# Only fits that ended in one of these ways are checked.
_CHECKED_RESULTS = (Result.converged, Result.max_iterations, Result.no_progress)


def with_flow_check(fit: Fit, start: np.ndarray) -> Fit:
    """Return a fit whose ``why`` says what importance sampling finds; warn where the approximation was exploited.

    Parameters
    ----------
    fit : Fit
        A fit by any estimator. It is returned as it is without a flow, where no parameter has moved, and after an
        algorithm that does not maximise an approximation, which leaves conditional ``moments``.
    start : array, (parameter,)
        Where the search began.
    """
    moved = np.any((fit.flat != start) & fit.free)
    maximised = fit.moments is None and fit.approximation.has_modes
    if not fit.program.flows or not maximised or not moved or fit.result not in _CHECKED_RESULTS:
        return fit
    before = fit.session.value(start)
    seed = fit.seed ^ own_number(fit)
    old = _sampled(fit, start, np.asarray(before.eta), np.asarray(before.hessian), seed)
    new = _sampled(fit, fit.flat, fit.eta, fit.hessian, seed)
    claimed = fit.log_likelihood + float(np.asarray(before.value)[fit.rows].sum())
    found, error = new[0] - old[0], float(np.hypot(new[1], old[1]))
    text = (
        f"log L by importance sampling {new[0]:.2f} ± {new[1]:.2f}, by {fit.approximation.label} "
        f"{fit.log_likelihood:.2f}; since the start, the first has changed by {found:+.2f} ± {error:.2f} and the "
        f"second by {claimed:+.2f}"
    )
    if not np.isfinite(found) or (claimed > 0 and found < -max(_SE_MULTIPLE * error, _NATS)):
        tell(
            f"The fit exploits its approximation: {text}. The flow has changed so that the error of the "
            f"approximation grows, and not so that the data become more likely. Use the parameters that the fit "
            f"started from, or refit with hx.VI(samples=32) or hx.SAEM(), which do not approximate the integral at "
            f"its mode.",
        )
        text = f"the approximation was exploited: {text}"
    return dataclasses.replace(fit, why=f"{fit.why}; {text}")


def _sampled(fit: Fit, flat: np.ndarray, eta: np.ndarray, hessian: np.ndarray, seed: int) -> tuple[float, float]:
    """Return log L by importance sampling and its Monte-Carlo error."""
    params = fit.layout.params(flat)
    logs = importance_sample(
        # The modes only centre the proposals. A subject without a mode gets poor weights, which show in the error.
        fit.program,
        fit.pop,
        params,
        np.nan_to_num(eta),
        inverse_blocks(hessian),
        _SAMPLING,
        seed % 2**31,
    )
    table = weight_table(logs[fit.rows], fit.ids)
    return float(table["log_likelihood"].sum()), float(np.sqrt((table["se"] ** 2).sum()))
