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
from hierax.infer.marginal.estimator import Estimator
from hierax.infer.marginal.laplace import Laplace
from hierax.infer.run.own_number import own_key
from hierax.program.density import Program
from hierax.program.read import cached
from hierax.program.trace import site_log_prob
from hierax.results.uncertainty.draws import as_chains, chain_coords
from hierax.results.uncertainty.own_number import own_number

if TYPE_CHECKING:
    from hierax.results.fit import Fit


def pointwise_log_likelihood(
    fit: Fit, flats: np.ndarray, seed: int, method: Estimator | None = None
) -> tuple[xr.DataArray, dict[str, xr.DataArray]]:
    """Return marginal log likelihoods (chain, draw, subject) and conditional ones (chain, draw, obs) by endpoint.

    The marginal ones are by ``method``, or by the fit's own approximation. The conditional ones are given one draw of
    each subject's random effects from the Gaussian at its mode.
    """
    program, estimator, unravel = fit.program, method or fit.approximation, fit.layout.unravel

    def once(flat: Any, key: Any, eta: Any, pop: Population) -> Any:
        clean = sanitise(pop)
        params = program.constrain(unravel(flat))
        anchor = estimator.anchor(program, clean, params, eta)
        marginal = -estimator.negative_log_likelihood(program, clean, params, anchor)
        modes = anchor if hasattr(estimator, "joint") else Laplace().anchor(program, clean, params, eta)
        run = program.run(clean, params, _near_mode(modes, key))
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


def at_draws(fit: Fit, flats: np.ndarray, etas: np.ndarray) -> tuple[dict[str, xr.DataArray], dict[str, np.ndarray]]:
    """Return log likelihoods and values of sites at draws of parameters (chain, draw, ...) and random effects.

    Returns
    -------
    log_likelihood : dict
        Log densities (chain, draw, obs) by endpoint.
    values : dict
        Values (chain, draw, *shape of the site) of random effects, by the program's names, and of deterministic sites.
    """
    program, unravel = fit.program, fit.layout.unravel
    shown = shown_sites(program)

    def once(pair: Any, pop: Population) -> Any:
        run = program.run(sanitise(pop), program.constrain(unravel(pair[0])), pair[1])
        logs = {n: site_log_prob(run.messages[n]) for n, site in program.sites.data.items() if not site.factor}
        return logs, {name: run.messages[name]["value"] for name in shown}

    def over_draws(flats: Any, etas: Any, pop: Population) -> Any:
        return jax.lax.map(lambda pair: once(pair, pop), (flats, etas), batch_size=16)

    function = cached(program, "at draws", lambda: jax.jit(over_draws))
    shape = flats.shape[:2]
    folded = jnp.asarray(flats.reshape(-1, flats.shape[-1])), jnp.asarray(etas.reshape(-1, *etas.shape[2:]))
    logs, values = function(*folded, fit.pop)
    flat = {name: _flatten(fit, name, np.asarray(value), shape) for name, value in logs.items()}
    return flat, {name: np.asarray(value).reshape(*shape, *value.shape[1:]) for name, value in values.items()}


def shown_sites(program: Program) -> list[str]:
    """Return the sites that a posterior shows beside population parameters."""
    deterministic = [name for name, msg in program.sites.messages.items() if msg["type"] == "deterministic"]
    return [*program.sites.effects, *deterministic]


def effects_given_draws(fit: Fit, flats: np.ndarray, seed: int) -> np.ndarray:
    """Return a draw of every subject's random effects for draws of the parameters (chain, draw, parameter).

    It comes from the Gaussian at the subject's mode, given these parameters. This is for methods that have integrated
    the random effects out, or that know them at one value of the parameters only.
    """
    program, unravel, method = fit.program, fit.layout.unravel, Laplace()

    def once(flat: Any, key: Any, eta: Any, pop: Population) -> Any:
        clean = sanitise(pop)
        return _near_mode(method.anchor(program, clean, program.constrain(unravel(flat)), eta), key)

    def over_draws(flats: Any, keys: Any, eta: Any, pop: Population) -> Any:
        return jax.lax.map(lambda pair: once(pair[0], pair[1], eta, pop), (flats, keys))

    function = cached(program, "effects given draws", lambda: jax.jit(over_draws))
    shape = flats.shape[:2]
    keys = jax.random.split(own_key(seed, own_number(fit)), shape[0] * shape[1])
    drawn = function(jnp.asarray(flats.reshape(-1, flats.shape[-1])), keys, fit.eta, fit.pop)
    return np.asarray(drawn).reshape(*shape, *np.shape(fit.eta))


def _near_mode(modes: Any, key: Any) -> Any:
    """Return a draw from the Gaussian at each subject's mode."""
    factor, _ = cholesky(modes.hessian)
    normal = jax.random.normal(key, modes.eta.shape)[..., None]
    return modes.eta + jax.scipy.linalg.solve_triangular(factor, normal, lower=True, trans=1)[..., 0]


def _flatten(fit: Fit, name: str, values: np.ndarray, shape: tuple[int, int] | None = None) -> xr.DataArray:
    """Return one endpoint's values over its observations, without padding, with subject and time as coordinates."""
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
    """Return a mask of where an endpoint is observed, and the coordinates of its observations."""
    pop = fit.pop
    seen = np.asarray(pop.mask[name]) & np.asarray(pop.subject_mask)[:, None]
    row = np.nonzero(seen)[0]
    ids = np.array(fit.ids)
    index = (np.cumsum(np.asarray(pop.subject_mask)) - 1)[row]
    return seen, {"subject": ("obs", ids[index]), "time": ("obs", np.asarray(pop.times)[seen])}


def observation_dim(fit: Fit, name: str) -> str:
    """Return the name of an endpoint's axis: ``obs``, or ``obs_<endpoint>`` where the program has several endpoints."""
    return "obs" if len([n for n in fit.pop.dv if n in fit.program.sites.data]) == 1 else f"obs_{name}"
