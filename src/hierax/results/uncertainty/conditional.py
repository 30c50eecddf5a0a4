"""Each subject's distribution given its data, at the estimate: draws, and the information by Louis' formula."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
import scipy.special
import xarray as xr
from jaxtyping import Float

from hierax.infer.blocks import inverse_blocks
from hierax.infer.marginal.importance import proposal_factor
from hierax.infer.pareto import HIGH_K, pareto_k
from hierax.infer.saem.conditional import conditional_draws
from hierax.infer.saem.louis import Louis, Parts, Terms, louis_information
from hierax.infer.saem.roles import find_roles
from hierax.results.uncertainty.own_number import own_number

if TYPE_CHECKING:
    from hierax.results.fit import Fit

# Settings of the information matrix. The draws come in this many independent groups, whose differences tell its error.
_GROUPS = 8
# How many draws of each subject a group begins with.
_FIRST_DRAWS = 64
# The proposals are t distributions. Their SDs are this multiple of the conditional SDs, and their degrees of freedom
# are few enough for tails longer than those of almost any posterior.
_PROPOSAL_SCALE, _PROPOSAL_DF = 1.1, 6.0
# Draws are added until the relative error of the standard errors is below this.
_SE_TOLERANCE = 0.005
# How many draws of each subject Markov chains begin with, where importance weights cannot be used.
_FIRST_CHAIN_DRAWS = 4096
# The most numbers that the second derivatives of all draws may take, which limits the draws per subject, and the bounds
# of this limit.
_MOST_NUMBERS, _FEWEST_DRAWS, _MOST_DRAWS = 20_000_000, 128, 32_768


def conditional_moments(fit: Fit) -> tuple[np.ndarray, np.ndarray]:
    """Return approximate means and covariances of each subject's random effects given its data.

    They are those of the algorithm's chains where the fit has them, else modes and inverse Hessians.
    """
    if fit.moments is not None:
        return fit.moments
    # NaN can be replaced by 0, because these are only starts of chains and centres of proposals, not results.
    return np.nan_to_num(fit.eta), inverse_blocks(fit.hessian)


def conditional_dataset(fit: Fit, draws: int) -> xr.Dataset:
    """Return labelled draws; see :meth:`hierax.Fit.conditional`."""
    values = padded_draws(fit, draws)[:, :, fit.rows]
    coords = {
        "chain": np.arange(values.shape[0]),
        "draw": np.arange(values.shape[1]),
        "subject": fit.ids,
        "eta_name": list(fit.program.effect_names),
    }
    return xr.Dataset({"eta": (("chain", "draw", "subject", "eta_name"), values)}, coords=coords)


def padded_draws(fit: Fit, draws: int) -> Float[np.ndarray, "chain draw subject coordinate"]:
    """Return draws of every subject's random effects given its data, padded subjects included."""
    if not fit.program.sites.effects:
        raise ValueError("The program has no random effects, so that there is nothing to draw given the data.")
    centre, covariance = conditional_moments(fit)
    return conditional_draws(fit.program, fit.pop, fit.params, centre, covariance, draws, fit.seed, own_number(fit))


def louis(fit: Fit, active: np.ndarray) -> Louis:
    """Return the observed information and the subjects' scores (of −log L) at the estimate, in the active entries.

    The draws come from importance sampling around the approximate conditional moments. They are independent, whereas
    Markov chains would need many times as many draws for the same error. Draws are added until the standard errors are
    known to 0.5 %, or their number reaches its limit. Where the weights have too heavy a tail, chains are used instead.
    """
    roles = find_roles(fit.program, fit.pop, fit.layout, fit.flat, fit.free)
    terms = Terms(fit.program, fit.layout, fit.pop, fit.flat, active, roles)
    most = int(np.clip(_MOST_NUMBERS // max(len(fit.rows) * (1 + len(active)) ** 2, 1), _FEWEST_DRAWS, _MOST_DRAWS))
    found = _by_importance(fit, terms, most)
    if found is None:
        found = _by_chains(fit, terms, most)
    return found._replace(scores=-found.scores)


def _by_chains(fit: Fit, terms: Terms, most: int) -> Louis:
    """Return the information by draws of Markov chains, which are autocorrelated but need no weights."""
    count = min(_FIRST_CHAIN_DRAWS, most)
    while True:
        draws = padded_draws(fit, count)
        even = np.full((*draws.shape[:2], len(fit.rows)), 1 / draws.shape[1])
        found = louis_information(terms.at(draws.reshape(-1, *draws.shape[2:])), even)
        if found.error.max(initial=0.0) <= _SE_TOLERANCE or 2 * count > most:
            return found
        count *= 2


def _by_importance(fit: Fit, terms: Terms, most: int) -> Louis | None:
    """Return the information by weighted draws; None where the weights of a subject have too heavy a tail."""
    centre, covariance = conditional_moments(fit)
    factor = _PROPOSAL_SCALE * np.asarray(proposal_factor(jnp.asarray(covariance)))
    size = centre.shape[1]
    log_det = np.log(np.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)
    rng = np.random.default_rng([fit.seed, own_number(fit)])
    draws, count = np.zeros((_GROUPS, 0, *centre.shape)), min(_FIRST_DRAWS, most // _GROUPS)
    logs, parts = np.zeros((_GROUPS, 0, len(fit.rows))), None
    while True:
        more = count - draws.shape[1]
        noise, density = _multivariate_t(_spread_points(rng, more, (len(centre), size + 1)))
        eta = centre + np.einsum("nij,gmnj->gmni", factor, noise)
        fresh = terms.at(eta.reshape(-1, *centre.shape))
        density = density - log_det
        weight = fresh.joint.reshape(_GROUPS, more, -1) - density[..., fit.rows]
        draws, logs = np.concatenate([draws, eta], axis=1), np.concatenate([logs, weight], axis=1)
        parts = fresh if parts is None else _joined(parts, fresh)
        if not np.isfinite(logs).all() or pareto_k(logs.reshape(-1, logs.shape[-1]).T).max() > HIGH_K:
            return None
        weights = np.exp(logs - scipy.special.logsumexp(logs, axis=1, keepdims=True))
        found = louis_information(parts, weights)
        if found.error.max(initial=0.0) <= _SE_TOLERANCE or 2 * count * _GROUPS > most:
            return found
        count *= 2


def _multivariate_t(uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return multivariate t vectors made from uniform ones, and their log densities.

    The last coordinate of a uniform vector gives the chi-square variate of its t vector.
    """
    size = uniform.shape[-1] - 1
    chi = scipy.special.chdtri(_PROPOSAL_DF, 1 - uniform[..., -1])
    noise = scipy.special.ndtri(uniform[..., :-1]) * np.sqrt(_PROPOSAL_DF / chi)[..., None]
    half = 0.5 * (_PROPOSAL_DF + size)
    constant = (
        scipy.special.gammaln(half)
        - scipy.special.gammaln(0.5 * _PROPOSAL_DF)
        - 0.5 * size * np.log(_PROPOSAL_DF * np.pi)
    )
    return noise, constant - half * np.log1p((noise**2).sum(-1) / _PROPOSAL_DF)


def _joined(parts: Parts, fresh: Parts) -> Parts:
    """Return two sets of parts joined into one, group by group."""

    def joined(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        pair = [part.reshape(_GROUPS, -1, *part.shape[1:]) for part in (one, other)]
        both = np.concatenate(pair, axis=1)
        return both.reshape(-1, *both.shape[2:])

    return Parts(*map(joined, parts, fresh))


def _spread_points(rng: np.random.Generator, count: int, shape: tuple[int, int]) -> np.ndarray:
    """Return points that fill the unit cube evenly, (group, draw, subject, coordinate).

    One Sobol sequence, shifted at random in every group and subject: its error is far below that of random points, and
    the shifts make groups and subjects independent (Cranley & Patterson 1976).
    """
    import scipy.stats.qmc

    base = scipy.stats.qmc.Sobol(shape[1], scramble=True, rng=rng).random(count)
    moved = (base[None, :, None, :] + rng.random((_GROUPS, 1, *shape))) % 1.0
    return np.clip(moved, 1e-12, 1 - 1e-12)
