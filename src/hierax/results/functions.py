"""Looking at what a network has learned: its values at chosen inputs, with a credible band."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from hierax.nn.network import leaves_of
from hierax.results.covariance import gradient, hessian, subject_scores

if TYPE_CHECKING:
    from hierax.results.fit import Fit

# With no more weights than this, the band takes all of them for uncertain, else those of the last layer.
_ALL_UP_TO = 60


def predict_function(
    fit: Fit,
    name: str,
    inputs: Any,
    *,
    module: Any = None,
    level: float = 0.9,
    which: str | None = None,
    prior_sd: float = 3.0,
    draws: int = 400,
    seed: int = 0,
) -> xr.Dataset:
    """Return a learned function at chosen inputs, with a credible band.

    Where the fit has draws of the weights (NUTS, VI with a guide of the population parameters), the band is theirs.
    Else it is by a Laplace approximation around the estimate: the Hessian of the marginal likelihood in the weights
    and in all other population parameters, and the function linear in the weights.

    Parameters
    ----------
    fit : Fit
        Of a program with this network.
    name : str
        Of the network, as given to :func:`hierax.nn.network` or NumPyro's ``flax_module``.
    inputs : array, (point, input)
        Where to look.
    module : flax.linen.Module, optional
        The network, where the program lifted it by ``flax_module`` itself, which leaves no note of it.
    level : float
        Of the band.
    which : str, optional
        For the Laplace approximation: "all" weights or those of a layer ("last"), given the others; by default all of
        up to 60 weights, else those of the last layer.
    prior_sd : float
        For the Laplace approximation: SD of a normal prior of weights that have none that counts. Directions in which
        the data say nothing would otherwise have an infinite band.
    draws, seed : int
        Number of functions drawn, and their seed.

    Returns
    -------
    xarray.Dataset
        ``estimate``, ``lower``, ``upper`` (point, output) and ``functions`` (chain, draw, point, output).

    Raises
    ------
    ValueError
        No such network, layer or level.

    Notes
    -----
    The band is of the function in the model as it is. That a different network fits as well (other starts, other
    widths) it does not say: fit from several ``init`` and compare.
    """
    if not 0 < level < 1:
        raise ValueError(f"predict_function(level={level}) is no probability. Use a number between 0 and 1, e.g. 0.9.")
    apply = _apply(fit, name, module)
    points = jnp.asarray(inputs, float)
    if points.ndim != 2:
        raise ValueError(
            f"predict_function(inputs=...) has shape {points.shape}, but a row is one input of the network. "
            f"Give (point, input): c[:, None] for a function of one number."
        )
    site = f"{name}$params"

    def values(flat: Array) -> Array:
        weights = fit.program.constrain(fit.layout.unravel(flat))[site]
        return apply({"params": weights}, points)

    estimate = np.asarray(values(jnp.asarray(fit.flat)))
    if estimate.ndim != 2:
        raise ValueError(
            f"The network '{name}' maps inputs of shape {points.shape} to shape {estimate.shape}; predict_function "
            f"looks at networks from (point, input) to (point, output)."
        )
    functions = _sampled(fit, site, values, draws)
    if functions is None:
        functions = _linearised(fit, site, values, estimate, which, prior_sd, draws, seed)
    lower, upper = np.quantile(functions, [(1 - level) / 2, (1 + level) / 2], axis=(0, 1))
    dims = ("point", "output")
    coords = {
        "chain": np.arange(functions.shape[0]),
        "draw": np.arange(functions.shape[1]),
        "input": (("point", "coordinate"), np.asarray(points)),
    }
    return xr.Dataset(
        {
            "estimate": (dims, estimate),
            "lower": (dims, lower),
            "upper": (dims, upper),
            "functions": (("chain", "draw", *dims), functions),
        },
        coords=coords,
        attrs={"level": level, "network": name},
    )


def _apply(fit: Fit, name: str, module: Any) -> Callable[..., Any]:
    """Return the network as a function of its weights and inputs."""
    if f"{name}$params" not in fit.program.sites.population:
        networks = [site.removesuffix("$params") for site in fit.program.sites.population if site.endswith("$params")]
        raise ValueError(f"The program has no network '{name}'. It has {networks}.")
    if module is not None:
        return module.apply
    note = fit.program.sites.messages.get(f"{name}$network")
    if note is None:
        raise ValueError(
            f"The network '{name}' was lifted by flax_module, which leaves no note of the module. Pass module=, or "
            f"lift it by hx.nn.network('{name}', module, ...)."
        )
    return note["fn"]()


def _sampled(fit: Fit, site: str, values: Any, draws: int) -> np.ndarray | None:
    """Return the function at draws of the weights, (chain, draw, point, output); None where the fit has none."""
    if fit.samples is None or not fit.free[fit.layout.slices[site]].any():
        return None
    flat = fit.samples.flat
    chains = flat.shape[0]
    keep = np.linspace(0, flat.shape[1] - 1, min(flat.shape[1], max(draws // chains, 1))).astype(int)
    chosen = jnp.asarray(flat[:, keep])
    return np.asarray(jax.jit(jax.vmap(jax.vmap(values)))(chosen))


def _linearised(
    fit: Fit, site: str, values: Any, estimate: np.ndarray, which: str | None, prior_sd: float, draws: int, seed: int
) -> np.ndarray:
    """Return draws of the function, linear in the weights, by a Laplace approximation."""
    weights = _entries(fit, site, which)
    others = np.flatnonzero(fit.free & ~fit.layout.weights())
    active = np.concatenate([weights, others]).astype(int)
    scores = subject_scores(fit, active)
    information = hessian(lambda flat, eta: gradient(fit, flat, eta, active), fit, active, scores @ scores.T)
    if site not in fit.session.priors:
        information[: len(weights), : len(weights)] += np.eye(len(weights)) / prior_sd**2
    curvatures, vectors = np.linalg.eigh(information)
    # At an optimum none is negative but for noise; elsewhere such a direction is no better known than by the prior.
    root = vectors / np.sqrt(np.maximum(curvatures, 1 / prior_sd**2))
    noise = np.random.default_rng(seed).normal(size=(draws, len(active)))
    moved = noise @ root.T

    def along(step: Array) -> Array:
        tangent = jnp.zeros(fit.flat.size).at[active].set(step)
        return jax.jvp(values, (jnp.asarray(fit.flat),), (tangent,))[1]

    return (estimate + np.asarray(jax.jit(jax.vmap(along))(jnp.asarray(moved))))[None]


def _entries(fit: Fit, site: str, which: str | None) -> np.ndarray:
    """Return the flat entries of the weights that are taken for uncertain."""
    place = np.arange(fit.layout.size)[fit.layout.slices[site]]
    if which is None:
        which = "all" if len(place) <= _ALL_UP_TO else "last"
    weights = fit.params[site]
    chosen = leaves_of(weights, which, f"predict_function(which='{which}')")
    sizes = [np.size(leaf) for leaf in jax.tree.leaves(weights)]
    return place[np.isin(np.repeat(np.arange(len(sizes)), sizes), chosen)]
