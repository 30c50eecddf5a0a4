"""Distributions of random effects and individual parameters, and how these depend on covariates."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd

from hierax.data.population import Population
from hierax.infer.simulate.simulation import draw
from hierax.results.fit import Evaluation
from hierax.results.uncertainty.parameter_draws import drawn_parameters


def drawn_effects(fit: Evaluation, site: str | None, n: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Return about ``n`` draws of a random effect's values over the population, and names of its coordinates.

    The population parameters are draws of the posterior where the fit has them, else the estimate.

    Raises
    ------
    ValueError
        There is no such site; the message names those that there are.
    """
    name = effect_site(fit, site)
    count = max(1, -(-n // len(fit.rows)))
    flats = drawn_parameters(fit, None, count, seed)
    given = fit.params if flats is None else {}
    values = draw(fit.program, fit.pop, given, count, seed, flats=flats, sites=[name])[name]
    flat = _by_subject(fit, name, values)[:, fit.rows]
    return flat.reshape(-1, flat.shape[-1]), list(fit.program.sites.effects[name].names)


def estimated_effects(fit: Evaluation, site: str | None) -> np.ndarray:
    """Return the values of a random effect at the modes, (subject, coordinate), on its own scale.

    These are the values that the program uses, not the working coordinates of ``fit.eta``.
    """
    name = effect_site(fit, site)
    run = fit.program.run(fit.pop, fit.params, jnp.asarray(fit.eta), stop=True)
    return _by_subject(fit, name, np.asarray(run.messages[name]["value"])[None])[0, fit.rows]


def effect_site(fit: Evaluation, site: str | None) -> str:
    """Return the name of a random effect after checking it, or that of the first where none is given."""
    there = list(fit.program.sites.effects)
    if not there or site not in (None, *there):
        raise ValueError(f"There is no random effect '{site}' to look at, because the program has {there}.")
    return there[0] if site is None else site


def _by_subject(fit: Evaluation, name: str, values: np.ndarray) -> np.ndarray:
    """Return values of shape (draw, *site shape) as (draw, subject, coordinate)."""
    axis = fit.program.sites.effects[name].axis + 1
    moved = np.moveaxis(values, axis, 1)
    return moved.reshape(*moved.shape[:2], -1)


def covariate_effects(
    fit: Evaluation,
    covariates: Sequence[str] | str,
    *,
    parameters: Sequence[str] | None = None,
    points: int = 15,
    n: int = 20,
    seed: int = 0,
    parameters_from: Any = None,
) -> pd.DataFrame:
    """Return how individual parameters would be distributed if all subjects had the same value of a covariate.

    This is a partial dependence: one covariate at a time is set to a value, all others stay as they are in the
    population, and random effects are drawn anew.

    Parameters
    ----------
    fit : Fit
        Fit of a program whose individual parameters are ``deterministic`` sites.
    covariates : sequence of str
        Names in ``pop.covariates`` that are one number per subject.
    parameters : sequence of str, optional
        Individual parameters; all by default.
    points : int
        Number of values of a covariate, from its 5 % to its 95 % quantile. A categorical covariate takes every level.
    n : int
        Number of draws per subject.
    seed : int
        Seed of the draws, which are the same at every value.
    parameters_from : {"draws", "estimate"}, SIR, Bootstrap or DataFrame, optional
        Population parameters of the draws, as ``parameters=`` of :func:`hierax.simulate`: those of the posterior
        where there is one, else the estimate.

    Returns
    -------
    pandas.DataFrame
        Columns ``covariate``, ``value``, ``parameter``, ``median``, ``lower`` and ``upper``; the last two are the 5 %
        and 95 % quantiles.

    Raises
    ------
    ValueError
        There is no such covariate or parameter; the message names those that there are.

    Examples
    --------
    >>> hx.covariate_effects(fit, ['WT'])  # doctest: +SKIP
    """
    names = [covariates] if isinstance(covariates, str) else list(covariates)
    numbers = [name for name, value in fit.pop.covariates.items() if np.ndim(value) == 2]
    if missing := [name for name in names if name not in numbers]:
        raise ValueError(
            f"{missing} are not covariates with one number per subject. Name some of {numbers}, which are."
        )
    there = list(fit.program.sites.individual)
    wanted = there if parameters is None else list(parameters)
    if not wanted or any(name not in there for name in wanted):
        raise ValueError(
            f"parameters={wanted}: the program's individual parameters are {there}. Write "
            f"numpyro.deterministic('CL', ...) in it for those that you want to see."
        )
    flats = drawn_parameters(fit, parameters_from, n, seed)
    given = fit.params if flats is None else {}
    rows = []
    for name in names:
        for value in _grid(fit, name, points):
            drawn = draw(fit.program, _everyone(fit.pop, name, value), given, n, seed, flats=flats, sites=wanted)
            for parameter in wanted:
                found = drawn[parameter][:, fit.rows]
                rows.append((name, value, parameter, *np.nanquantile(found, [0.5, 0.05, 0.95])))
    return pd.DataFrame(rows, columns=["covariate", "value", "parameter", "median", "lower", "upper"])


def _grid(fit: Evaluation, name: str, points: int) -> np.ndarray:
    own = np.asarray(fit.pop.covariates[name])[fit.rows]
    if name in fit.pop.labels:
        return np.arange(len(fit.pop.labels[name]))
    low, high = np.quantile(own, [0.05, 0.95])
    return np.linspace(low, high, points)


def _everyone(pop: Population, name: str, value: Any) -> Population:
    """Return the population with one value of a covariate for all subjects."""
    own = np.asarray(pop.covariates[name])
    return dataclasses.replace(pop, covariates={**pop.covariates, name: np.full_like(own, value)})
