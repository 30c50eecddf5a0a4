"""Find parameters that an objective does not contain, and those of them that are in the likelihood all the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from hierax.infer.marginal.objective import Evaluated
from hierax.infer.marginal.session import Session
from hierax.infer.result import Result
from hierax.program.read import cached

# Standard deviations of the random points around a start at which the objective is looked at, in unconstrained space.
# Two lie near the start and two far off, because a parameter may matter elsewhere and not at the start.
_AROUND = (0.2, 0.2, 2.0, 2.0)
# How far each parameter that seems absent is also moved by itself, in unconstrained space: a rate constant of 1e4, for
# example, changes the objective again where it is lower by some decades.
_DECADES = np.log(10) * np.array([-2.0, 2.0, -4.0, 4.0, -6.0, 6.0, -8.0, 8.0])
# A parameter counts as absent where its derivative is zero at this many points or more.
_ENOUGH = 3
# The mode and the curvature of a subject without data are those of the prior, up to a rounding error of this size
# relative to the prior.
_SAME = 1e-7


def inert_entries(
    session: Session, flat: Float[np.ndarray, " parameter"], free: Bool[np.ndarray, " parameter"]
) -> tuple[Bool[np.ndarray, " parameter"], Any]:
    """Return which free entries the objective does not contain at all: their scores are zero for every subject.

    The second value is the modes at ``flat``, or None if they are not known.

    The scores must be zero at other points too, because a start may be special (a slope of zero, say). Points at which
    some score is not finite are passed over. Network weights are never held.
    """
    inert = free & ~session.layout.weights()
    eta, told = None, 0
    rng = np.random.default_rng(2)
    for at in (flat, *(flat + rng.normal(0, away, flat.size) for away in _AROUND)):
        if not inert.any():
            break
        out = session.evaluate(at, eta)
        eta = out.eta if at is flat and np.isfinite(out.eta).all() else eta
        scores = np.asarray(out.gradient)[:, None] if out.scores is None else np.asarray(out.scores)
        if np.isfinite(scores).all():
            inert &= (np.abs(scores).max(-1) == 0) & (session.penalty(at)[1] == 0)
            told += 1
        elif at is flat:
            break
    inert &= told >= _ENOUGH
    forward = session.forward
    for entry in map(int, np.flatnonzero(inert)):
        if inert[entry]:
            inert &= ~_depends_far_off(session, flat, entry, eta)
    # A gradient that is not finite so far off is no reason to use forward derivatives in the search.
    session.forward = forward
    return inert, eta


def _depends_far_off(
    session: Session, flat: Float[np.ndarray, " parameter"], entry: int, eta: Any
) -> Bool[np.ndarray, " parameter"]:
    """Move one entry by decades until the objective depends on it; return all entries that it depends on there."""
    unit = 1.0 if session.layout.bounded()[entry] else max(abs(float(flat[entry])), 1.0)
    for away in _DECADES:
        at = flat.copy()
        at[entry] += away * unit
        out = session.evaluate(at, eta)
        scores = np.asarray(out.gradient)[:, None] if out.scores is None else np.asarray(out.scores)
        felt = np.any(scores != 0, axis=-1)
        if np.isfinite(scores).all() and felt[entry]:
            return felt
    return np.zeros(flat.size, bool)


def absent_entries(
    session: Session, flat: Float[np.ndarray, " parameter"], inert: Bool[np.ndarray, " parameter"]
) -> Bool[np.ndarray, " parameter"]:
    """Return which of the inert entries are not in the likelihood either, so that no estimator can estimate them.

    An approximation that integrates over the random effects depends on the same parameters as the likelihood. Naive
    pooling does not integrate, and so does not depend on the variances of the random effects. There the derivative of
    the joint density of data and random effects decides.
    """
    if not inert.any() or session.estimator.has_modes:
        return inert
    program, places, pop = session.program, session.layout, session.pop

    def weighted(flat: Any, eta: Any, weights: Any, pop: Any) -> Any:
        params = program.constrain(places.unravel(flat))
        return jnp.vdot(weights, program.log_joint(pop, params, eta))

    slope = cached(program, "slope of the joint density", lambda: jax.jit(jax.grad(weighted)))
    rng = np.random.default_rng(3)
    shape = (pop.n_subjects, len(program.effect_names))
    absent = inert.copy()
    for away in _AROUND:
        at = flat + rng.normal(0, away, flat.size)
        # The subjects' derivatives have random weights, because their plain sum may be zero by chance.
        found = np.asarray(slope(at, rng.normal(0, away, shape), rng.uniform(1, 2, shape[0]), pop))
        absent &= (found == 0) if np.isfinite(found).all() else True
    return absent


def nothing_to_estimate(names: Sequence[str]) -> tuple[Result, str]:
    """Return result and reason of a fit with parameters that the likelihood does not contain."""
    return Result.did_not_move, (
        f"the likelihood does not contain {', '.join(names)}, so that these parameters were not estimated; all "
        f"others were. Hold them (fixed=), take them out of the model, or check whether the model uses them as you "
        f"intend"
    )


def unused_effects(
    session: Session, flat: Float[np.ndarray, " parameter"], out: Evaluated
) -> tuple[Result, str] | None:
    """Return result and reason if no data depend on some random effect, or None where every effect has data.

    The variance of an effect without data is not estimated: it only wanders at random. Such an effect is recognised by
    each subject's mode, which is the centre of the prior, and by the Hessian there, which is that of the prior.
    """
    program, params = session.program, session.layout.params(flat)
    if not out.eta.size or not np.isfinite(np.asarray(out.value)).all():
        return None
    prior = cached(
        program, "prior of effects", lambda: jax.jit(lambda *a: (program.reference(*a[:2]), program.prior_scale(*a)))
    )
    centre, sd = (np.asarray(one) for one in prior(session.pop, params, out.eta))
    rows = np.asarray(session.pop.subject_mask, bool)
    away = np.abs(np.asarray(out.eta) - centre)[rows]
    curvature = np.einsum("nkk->nk", np.asarray(out.hessian))[rows] * sd[rows] ** 2
    unused = ((away <= _SAME * sd[rows]) & (np.abs(curvature - 1) <= _SAME) & (sd[rows] > 0)).all(0)
    if not unused.any():
        return None
    names = ", ".join(np.array(program.effect_names)[unused])
    return Result.did_not_move, (
        f"no data depend on the random effect {names}, so that its distribution was not estimated. Take it out of "
        f"the model, or check whether the model uses it as you intend"
    )
