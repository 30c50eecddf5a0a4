"""Log likelihoods by subject and by observation, over draws of the estimates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from hierax.data.population import Population
from hierax.data.sanitise import sanitise
from hierax.infer.blocks import cholesky
from hierax.infer.estimator import Estimator
from hierax.infer.laplace import Laplace
from hierax.program.read import cached
from hierax.program.trace import site_log_prob
from hierax.results.draws import as_chains, chain_coords

if TYPE_CHECKING:
    from hierax.results.fit import Fit


def pointwise_log_likelihood(
    fit: Fit, flats: np.ndarray, seed: int, method: Estimator | None = None
) -> tuple[xr.DataArray, dict[str, xr.DataArray]]:
    """Return marginal log likelihoods (chain, draw, subject) and conditional ones (chain, draw, obs) by endpoint.

    The marginal ones are by ``method``, or by the fit's own approximation.

    The conditional ones are given one draw of each subject's random effects from the Gaussian at its mode.
    """
    program, estimator, unravel = fit.program, method or fit.estimator, fit.layout.unravel

    def once(flat: Any, key: Any, eta: Any, pop: Population) -> Any:
        clean = sanitise(pop)
        params = program.constrain(unravel(flat))
        anchor = estimator.anchor(program, clean, params, eta)
        marginal = -estimator.negative_log_likelihood(program, clean, params, anchor)
        modes = anchor if hasattr(estimator, "joint") else Laplace().anchor(program, clean, params, eta)
        factor, _ = cholesky(modes.hessian)
        normal = jax.random.normal(key, modes.eta.shape)[..., None]
        drawn = modes.eta + jax.scipy.linalg.solve_triangular(factor, normal, lower=True, trans=1)[..., 0]
        run = program.run(clean, params, drawn)
        sites = {n: site_log_prob(run.messages[n]) for n, site in program.sites.data.items() if not site.factor}
        return marginal, sites

    def over_draws(flats: Any, keys: Any, eta: Any, pop: Population) -> Any:
        return jax.lax.map(lambda pair: once(pair[0], pair[1], eta, pop), (flats, keys))

    function = cached(program, ("pointwise", estimator), lambda: jax.jit(over_draws))
    keys = jax.random.split(jax.random.key(seed), len(flats))
    marginal, sites = function(jnp.asarray(flats), keys, fit.eta, fit.pop)
    ids = fit.ids
    by_subject = xr.DataArray(
        as_chains(np.asarray(marginal)[:, fit.rows]),
        dims=("chain", "draw", "subject"),
        coords={**chain_coords(len(flats)), "subject": ids},
    )
    return by_subject, {name: _flatten(fit, name, np.asarray(value)) for name, value in sites.items()}


def conditional_log_likelihood(fit: Fit) -> dict[str, xr.DataArray]:
    """Return log densities (chain, draw, obs) by endpoint at the posterior's draws."""
    assert fit.samples is not None
    assert fit.samples.eta is not None
    program, unravel = fit.program, fit.layout.unravel

    def once(pair: Any, pop: Population) -> Any:
        run = program.run(sanitise(pop), program.constrain(unravel(pair[0])), pair[1])
        return {n: site_log_prob(run.messages[n]) for n, site in program.sites.data.items() if not site.factor}

    def over_draws(flats: Any, etas: Any, pop: Population) -> Any:
        return jax.lax.map(lambda pair: once(pair, pop), (flats, etas), batch_size=16)

    function = cached(program, "conditional log likelihood", lambda: jax.jit(over_draws))
    flat, eta = fit.samples.flat, fit.samples.eta
    shape = flat.shape[:2]
    sites = function(
        jnp.asarray(flat.reshape(-1, flat.shape[-1])), jnp.asarray(eta.reshape(-1, *eta.shape[2:])), fit.pop
    )
    return {name: _flatten(fit, name, np.asarray(value), shape) for name, value in sites.items()}


def _flatten(fit: Fit, name: str, values: np.ndarray, shape: tuple[int, int] | None = None) -> xr.DataArray:
    """Return one endpoint's values over its observations, no padding, with subject and time as coordinates."""
    base = chain_coords(len(values))
    if shape is not None:
        base = {"chain": np.arange(shape[0]), "draw": np.arange(shape[1])}
    if name not in fit.pop.mask or values.shape[1:] != np.shape(fit.pop.times):
        rows = values.reshape(len(values), values.shape[1], -1)[:, fit.rows]
        return xr.DataArray(
            _folded(rows.reshape(len(values), -1), shape), dims=("chain", "draw", f"obs_{name}"), coords=base
        )
    seen, coords = observation_coords(fit, name)
    dim = observation_dim(fit, name)
    labels = {f"{key}_{name}" if dim != "obs" else key: (dim, value) for key, (_, value) in coords.items()}
    return xr.DataArray(_folded(values[:, seen], shape), dims=("chain", "draw", dim), coords={**base, **labels})


def _folded(values: np.ndarray, shape: tuple[int, int] | None) -> np.ndarray:
    return as_chains(values) if shape is None else values.reshape(*shape, *values.shape[1:])


def observation_coords(fit: Fit, name: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Return where an endpoint is observed, and the coordinates of its observations."""
    pop = fit.pop
    seen = np.asarray(pop.mask[name]) & np.asarray(pop.subject_mask)[:, None]
    row = np.nonzero(seen)[0]
    ids = np.array(fit.ids)
    index = (np.cumsum(np.asarray(pop.subject_mask)) - 1)[row]
    return seen, {"subject": ("obs", ids[index]), "time": ("obs", np.asarray(pop.times)[seen])}


def observation_dim(fit: Fit, name: str) -> str:
    """Return ``obs``, or ``obs_<endpoint>`` where there are several of different lengths."""
    return "obs" if len([n for n in fit.pop.dv if n in fit.program.sites.data]) == 1 else f"obs_{name}"
