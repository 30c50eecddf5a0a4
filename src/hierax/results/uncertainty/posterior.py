"""Draws of a posterior: their diagnostics and their summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

from hierax.program.parameters import element_names, elementwise
from hierax.program.read import cached
from hierax.results.axes import labelled
from hierax.results.tables.matrices import shown, shown_places
from hierax.results.tables.spread import matrices_apart, matrix_moments, pairs, part_names, prior_moments

if TYPE_CHECKING:
    from hierax.results.fit import Fit

# Chains have mixed where R-hat is at most this (Vehtari et al. 2021).
_R_HAT = 1.01
# The sampler's steps were short enough where at most this share of all draws diverged.
_MOST_DIVERGED = 0.001
# The largest number of draws from which SDs and correlations are computed.
_SPREAD_DRAWS = 1000


def trouble(fit: Fit) -> str:
    """Return what is wrong with the chains of a fit, or an empty string; independent draws are not judged."""
    samples = fit.samples
    if samples is None or samples.independent:
        return ""
    table = diagnostics(fit)
    worst = table["r_hat"].max()
    share = float(np.mean(samples.stats["diverging"])) if "diverging" in samples.stats else 0.0
    found = []
    # Where only network weights are estimated, the largest R-hat is NaN, and the chains are not judged by it.
    if samples.flat.shape[0] > 1 and worst > _R_HAT:
        found.append(f"R-hat of {table['r_hat'].idxmax()} is {worst:.3f}: run longer (warmup=, draws=)")
    if share > _MOST_DIVERGED:
        found.append(f"{share:.1%} of draws diverged: raise target_accept, or give tighter priors")
    return "; ".join(found)


def population_draws(fit: Fit) -> dict[str, np.ndarray]:
    """Return draws (chain, draw, ...) of every population parameter except network weights, on the natural scale."""
    assert fit.samples is not None
    flat = fit.samples.flat
    weights = fit.layout.weights()

    def one(values: Any) -> Any:
        return fit.program.constrain(fit.layout.unravel(values))

    folded = jnp.asarray(flat.reshape(-1, flat.shape[-1]))
    values = jax.jit(lambda v: jax.lax.map(one, v, batch_size=256))(folded)
    return {
        name: np.asarray(values[name]).reshape(*flat.shape[:2], *site.shape)
        for name, site in fit.program.sites.population.items()
        if not weights[fit.layout.slices[name]].any()
    }


def posterior_dataset(fit: Fit, values: Mapping[str, np.ndarray]) -> xr.Dataset:
    """Return draws of population parameters, random effects and deterministic sites by the program's names.

    Parameters
    ----------
    values : mapping
        Draws of random effects and deterministic sites, (chain, draw, *shape of the site).
    """
    assert fit.samples is not None
    out = {}
    for name, value in population_draws(fit).items():
        dims = tuple(f"{name}_dim_{axis}" for axis in range(value.ndim - 2))
        out[name] = (("chain", "draw", *dims), value)
    for name, value in values.items():
        dims, array = labelled(fit, name, value)
        out[name] = (("chain", "draw", *dims), array)
    coords: dict[str, Any] = {
        "chain": np.arange(fit.samples.flat.shape[0]),
        "draw": np.arange(fit.samples.flat.shape[1]),
        "subject": fit.ids,
    }
    return xr.Dataset(out, coords=coords)


def diagnostics(fit: Fit) -> pd.DataFrame:
    """Return R-hat and effective sample sizes of every element of every free population parameter.

    All are NaN where the draws are not Markov chains: independent draws have an R-hat near 1 whatever they are drawn
    from.
    """
    assert fit.samples is not None
    if fit.samples.independent:
        return pd.DataFrame(np.nan, index=list(elements(fit)), columns=["ess_bulk", "ess_tail", "r_hat"])
    rows = {}
    for element, draws in elements(fit).items():
        rows[element] = {
            "ess_bulk": _ess(draws, "bulk"),
            "ess_tail": _ess(draws, "tail"),
            "r_hat": _r_hat(draws),
        }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["ess_bulk", "ess_tail", "r_hat"])


def elements(fit: Fit) -> dict[str, np.ndarray]:
    """Return draws by element, (chain, draw), of the free population parameters."""
    out = {}
    for name, value in population_draws(fit).items():
        site = fit.program.sites.population[name]
        free = np.broadcast_to(fit.free[fit.layout.slices[name]].any(), (int(np.prod(site.shape, dtype=int)),))
        if len(fit.free[fit.layout.slices[name]]) == len(free):
            free = fit.free[fit.layout.slices[name]]
        flat = np.asarray(shown(site, value)).reshape(*value.shape[:2], -1)
        places = np.ones(flat.shape[-1], bool) if elementwise(site) else shown_places(site)
        for index, element in enumerate(element_names(name, site.shape)):
            if places[index] and free[index] and np.ptp(flat[..., index]) > 0:
                out[element] = flat[..., index]
    return out


def spread_draws(fit: Fit) -> pd.DataFrame:
    """Return mean, SD and quantiles of the SDs and correlations of random effects, for the first subject.

    Covariances that the program uses outside the distribution of its random effects (L @ z) are included. Quantities
    that are the same in every draw are left out.
    """
    assert fit.samples is not None
    program, layout, row = fit.program, fit.layout, int(fit.rows[0])
    flat = fit.samples.flat.reshape(-1, fit.samples.flat.shape[-1])
    # More draws would not change the quantiles as they are printed, and would take long where the prior has a network.
    flat = flat[np.linspace(0, len(flat) - 1, min(len(flat), _SPREAD_DRAWS)).astype(int)]
    apart = matrices_apart(program, layout, flat[-1], fit.pop, row)
    names = list(program.effect_names)
    labels = [f"SD({name})" for name in names] + pairs(names)
    for name in apart:
        labels += [f"SD({part})" for part in part_names(program, name)] + pairs(part_names(program, name))

    def one(at: Any, pop: Any) -> Any:
        found = [*prior_moments(program, layout, at, pop, row)] if names else []
        for name in apart:
            found += matrix_moments(program, layout, name, at)
        return jnp.concatenate(found) if found else jnp.zeros(0)

    key = ("spread of draws", row, len(flat))
    run = cached(program, key, lambda: jax.jit(lambda v, pop: jax.lax.map(lambda at: one(at, pop), v, batch_size=32)))
    draws = np.asarray(run(jnp.asarray(flat), fit.pop))
    moves = np.ptp(draws, axis=0) > 1e-9 * np.abs(draws).max(0, initial=0.0) if draws.size else np.zeros(0, bool)
    low, middle, high = np.quantile(draws, [0.025, 0.5, 0.975], axis=0) if draws.size else np.zeros((3, 0))
    columns = {"mean": draws.mean(0), "sd": draws.std(0), "2.5 %": low, "50 %": middle, "97.5 %": high}
    return pd.DataFrame(columns, index=labels)[moves]


def posterior_table(fit: Fit) -> pd.DataFrame:
    """Return mean, SD, 90 % interval, Monte-Carlo error, effective sample sizes and R-hat by element."""
    rows = {}
    for element, draws in elements(fit).items():
        low, median, high = np.quantile(draws, [0.05, 0.5, 0.95])
        rows[element] = {"mean": draws.mean(), "sd": draws.std(ddof=1), "5 %": low, "median": median, "95 %": high}
    table = pd.DataFrame.from_dict(rows, orient="index")
    if not len(table):
        return table
    found = diagnostics(fit)
    assert fit.samples is not None
    count = fit.samples.flat[..., 0].size if fit.samples.independent else found["ess_bulk"]
    table["mcse"] = table["sd"] / np.sqrt(count)
    return table.join(found)


def _ess(draws: np.ndarray, method: str) -> float:
    import arviz

    # ArviZ 1.x needs the probabilities of the tails. These are the ones that 0.x uses by default.
    tails: dict[str, Any] = {"prob": (0.05, 0.95)} if method == "tail" else {}
    return float(np.asarray(arviz.ess(np.ascontiguousarray(draws), method=method, **tails)))


def _r_hat(draws: np.ndarray) -> float:
    import arviz

    return float(np.asarray(arviz.rhat(np.ascontiguousarray(draws)))) if draws.shape[0] > 1 else np.nan
