"""``hx.predict_function``: the values of a learned network at chosen inputs, with a credible band."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Array

from hierax.nn.network import leaves_of
from hierax.results.uncertainty.covariance import gradient, hessian, subject_scores
from hierax.results.uncertainty.own_number import own_number

if TYPE_CHECKING:
    from hierax.results.fit import Fit

# The band takes all weights of a network as uncertain where there are at most this many, else those of the last layer.
_MOST_UNCERTAIN = 60


def predict_function(
    fit: Fit | Sequence[Fit],
    name: str,
    inputs: Any,
    *,
    module: Any = None,
    replicates: pd.DataFrame | None = None,
    level: float = 0.9,
    which: str | None = None,
    prior_sd: float = 3.0,
    draws: int = 400,
    seed: int = 0,
) -> xr.Dataset:
    """Return a learned function at chosen inputs, with a credible band.

    Where the fit has draws of the weights (NUTS, VI with a guide of the population parameters), the band is computed
    from them. Otherwise it comes from a Laplace approximation around the estimate: the Hessian of the marginal
    likelihood with respect to the weights and all other population parameters, and the function linearised in the
    weights. Given several fits, or the replicates of a bootstrap, the band is the spread of their functions, which
    shows how well the function is identified.

    Parameters
    ----------
    fit : Fit or sequence of Fit
        A fit of a program with this network. Of several fits (with different ``init``), the estimate is that of the fit
        with the highest log likelihood, and the functions are those of all fits.
    name : str
        Name of the network, as given to :func:`hierax.nn.network`, or to NumPyro's ``flax_module`` or
        ``random_flax_module``.
    inputs : array, (point, input)
        Inputs at which the network is evaluated.
    module : flax.linen.Module, optional
        The network; needed where the program registered it by NumPyro's functions, which do not record the module.
    replicates : pandas.DataFrame, optional
        The ``estimates`` of :func:`hierax.bootstrap` of this fit.
    level : float
        Level of the band.
    which : str, optional
        For the Laplace approximation: the weights that are taken as uncertain, given the others. These are "all", or
        those of one layer ("last"); by default all of up to 60 weights, else those of the last layer.
    prior_sd : float
        For the Laplace approximation: SD of a normal prior of the weights, where the fit has no prior of them that
        counts. Directions about which the data say nothing would otherwise have an infinite band.
    draws, seed : int
        Number of functions drawn, and their seed.

    Returns
    -------
    xarray.Dataset
        ``estimate``, ``lower``, ``upper`` (point, output) and ``functions`` (chain, draw, point, output).

    Raises
    ------
    ValueError
        There is no such network or layer, or the level is not a probability.

    Notes
    -----
    The band of one fit takes the network as given, and does not show whether a different one would fit as well. To see
    that, pass fits from several ``init``, and compare network widths by :func:`hierax.cross_validate`.

    Examples
    --------
    >>> curve = hx.predict_function(fit, 'rate', jnp.linspace(0, 1, 50))  # doctest: +SKIP
    """
    if not 0 < level < 1:
        raise ValueError(f"predict_function(level={level}) must be a probability between 0 and 1, e.g. 0.9.")
    fits = [fit] if not isinstance(fit, Sequence) else sorted(fit, key=lambda one: -one.log_likelihood)
    if not fits or (len(fits) > 1 and replicates is not None):
        raise ValueError(
            "predict_function needs at least one fit, and exactly one with replicates=, because replicates belong to "
            "one fit."
        )
    fit = fits[0]
    apply = _apply(fit, name, module)
    points = jnp.asarray(inputs, float)
    if points.ndim != 2:
        raise ValueError(
            f"predict_function(inputs=...) has shape {points.shape}, but a row is one input of the network. "
            f"Give (point, input): c[:, None] for a function of one number."
        )
    sites = _sites(fit, name)

    def values(flat: Array) -> Array:
        return apply({"params": _weights(name, sites, fit.program.constrain(fit.layout.unravel(flat)))}, points)

    estimate = np.asarray(values(jnp.asarray(fit.flat)))
    if estimate.ndim != 2:
        raise ValueError(
            f"The network '{name}' maps inputs of shape {points.shape} to shape {estimate.shape}; predict_function "
            f"needs a network that maps (point, input) to (point, output)."
        )
    if len(fits) > 1 or replicates is not None:
        flats = _replicated(fit, replicates) if replicates is not None else np.stack([one.flat for one in fits])
        functions = np.asarray(jax.jit(jax.vmap(values))(jnp.asarray(flats)))[None]
    else:
        functions = _sampled(fit, sites, values, draws)
    if functions is None:
        functions = _linearised(fit, name, values, estimate, which, prior_sd, draws, seed)
    return _dataset(name, np.asarray(points), estimate, functions, level)


def _dataset(name: str, points: np.ndarray, estimate: np.ndarray, functions: np.ndarray, level: float) -> xr.Dataset:
    """Return the function and its band, labelled."""
    lower, upper = np.quantile(functions, [(1 - level) / 2, (1 + level) / 2], axis=(0, 1))
    dims = ("point", "output")
    coords = {
        "chain": np.arange(functions.shape[0]),
        "draw": np.arange(functions.shape[1]),
        "input": (("point", "coordinate"), points),
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
    if not _sites(fit, name):
        networks = [site.removesuffix("$params") for site in fit.program.sites.messages if site.endswith("$params")]
        raise ValueError(f"The program has no network '{name}'. It has {networks}.")
    if module is not None:
        return module.apply
    note = fit.program.sites.messages.get(f"{name}$network")
    if note is None:
        raise ValueError(
            f"The network '{name}' was registered by a function of NumPyro, which does not record the module. Pass "
            f"module=, or register the network by hx.nn.network('{name}', module, ...)."
        )
    return note["fn"]()


def _sites(fit: Fit, name: str) -> list[str]:
    """Return the sites of a network's weights: one for all, or one per tensor where random_flax_module is used."""
    population = fit.program.sites.population
    if f"{name}$params" in population:
        return [f"{name}$params"]
    lifted = f"{name}$params" in fit.program.sites.messages
    return [site for site in population if lifted and site.startswith(f"{name}/")]


def _weights(name: str, sites: list[str], params: dict[str, Any]) -> Any:
    """Return a network's weights as the nested dictionary that its module expects."""
    if sites == [f"{name}$params"]:
        return params[sites[0]]
    tree: dict[str, Any] = {}
    for site in sites:
        *layers, last = site.removeprefix(f"{name}/").split(".")
        branch = tree
        for layer in layers:
            branch = branch.setdefault(layer, {})
        branch[last] = params[site]
    return tree


def _replicated(fit: Fit, replicates: pd.DataFrame) -> np.ndarray:
    """Return flat vectors that hold the weights of the replicates.

    Their other entries are left on the natural scale, because the network does not depend on them.
    """
    names = fit.layout.names()
    missing = set(replicates.columns) - set(names)
    if missing:
        raise ValueError(
            f"replicates= has columns that are not parameters of the fit: {sorted(missing)}. Pass the estimates of "
            f"hx.bootstrap(fit) for this same fit."
        )
    flats = np.tile(np.asarray(fit.flat), (len(replicates), 1))
    flats[:, [names.index(column) for column in replicates.columns]] = replicates.to_numpy()
    return flats


def _sampled(fit: Fit, sites: list[str], values: Any, draws: int) -> np.ndarray | None:
    """Return the function at draws of the weights, (chain, draw, point, output); None where the fit has none."""
    if fit.samples is None or not any(fit.free[fit.layout.slices[site]].any() for site in sites):
        return None
    flat = fit.samples.flat
    chains = flat.shape[0]
    keep = np.linspace(0, flat.shape[1] - 1, min(flat.shape[1], max(draws // chains, 1))).astype(int)
    chosen = jnp.asarray(flat[:, keep])
    return np.asarray(jax.jit(jax.vmap(jax.vmap(values)))(chosen))


def _linearised(
    fit: Fit, name: str, values: Any, estimate: np.ndarray, which: str | None, prior_sd: float, draws: int, seed: int
) -> np.ndarray:
    """Return draws of the function, linearised in the weights, by a Laplace approximation of their distribution."""
    weights = _entries(fit, name, which)
    others = np.flatnonzero(fit.free & ~fit.layout.weights())
    active = np.concatenate([weights, others]).astype(int)
    scores = subject_scores(fit, active)
    information = hessian(lambda flat, eta: gradient(fit, flat, eta, active), fit, active, scores @ scores.T)
    if not fit.session.priors.keys() & set(_sites(fit, name)):
        information[: len(weights), : len(weights)] += np.eye(len(weights)) / prior_sd**2
    curvatures, vectors = np.linalg.eigh(information)
    # At an optimum a curvature is negative only by numerical error. Elsewhere a direction of negative curvature is no
    # better known than by the prior. The prior's curvature is therefore the lower bound of all.
    root = vectors / np.sqrt(np.maximum(curvatures, 1 / prior_sd**2))
    noise = np.random.default_rng([seed, own_number(fit)]).normal(size=(draws, len(active)))
    moved = noise @ root.T

    def along(step: Array) -> Array:
        tangent = jnp.zeros(fit.flat.size).at[active].set(step)
        return jax.jvp(values, (jnp.asarray(fit.flat),), (tangent,))[1]

    return (estimate + np.asarray(jax.jit(jax.vmap(along))(jnp.asarray(moved))))[None]


def _entries(fit: Fit, name: str, which: str | None) -> np.ndarray:
    """Return the flat entries of the weights that are taken as uncertain."""
    places = fit.layout.unravel(jnp.arange(fit.layout.size, dtype=float))
    tree = _weights(name, _sites(fit, name), places)
    leaves = [np.asarray(leaf, int).ravel() for leaf in jax.tree.leaves(tree)]
    if which is None:
        which = "all" if sum(map(len, leaves)) <= _MOST_UNCERTAIN else "last"
    return np.concatenate([leaves[k] for k in leaves_of(tree, which, f"predict_function(which='{which}')")])
