"""``hx.program`` and ``hx.check``: the parsed program, for inspection and for algorithms of one's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from hierax.data.population import Population
from hierax.data.sanitise import sanitise
from hierax.program.checking.endpoints import unobserved
from hierax.program.checking.survey import warn_of_data
from hierax.program.density import Program
from hierax.program.read import read_program
from hierax.program.sites import Sites
from hierax.program.trace import Model


@dataclasses.dataclass(frozen=True)
class ParsedProgram:
    """A program bound to a population.

    Attributes
    ----------
    sites : Sites
        Population parameters, random effects, data and individual parameters, by class.
    effect_names : tuple of str
        Names of the random-effect coordinates: the last axis of ``eta``.
    start : dict
        Start values, constrained.
    """

    program: Program
    pop: Population

    @property
    def sites(self) -> Sites:
        """The sites by class."""
        return self.program.sites

    @property
    def effect_names(self) -> tuple[str, ...]:
        """Names of the random-effect coordinates."""
        return self.program.effect_names

    @property
    def start(self) -> dict[str, Any]:
        """Start values, constrained."""
        return self.program.start()

    def log_density(self, params: Mapping[str, Any], eta: Float[Array, "subject coordinate"]) -> Array:
        """Return log p(y_i, η_i | θ) of every subject, (subject,); it works under jit, grad and vmap.

        Parameters
        ----------
        params : mapping
            Population parameters, constrained. Their priors are not part of the density.
        eta : array, (subject, coordinate)
            Random effects in their working coordinates (with real support the effect itself, log-normal its logarithm).
        """
        return self.program.log_density(sanitise(self.pop), params, eta)

    def constrain(self, free: Mapping[str, Any]) -> dict[str, Any]:
        """Map unconstrained population parameters to constrained ones."""
        return self.program.constrain(free)

    def unconstrain(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Map constrained population parameters to unconstrained ones."""
        return self.program.unconstrain(params)


def program(model: Model, pop: Population, *, plate: str = "subject") -> ParsedProgram:
    """Parse and check a NumPyro program against a population.

    Parameters
    ----------
    model : callable
        NumPyro program, a function of the population.
    pop : Population
    plate : str
        Name of the subject plate.

    Returns
    -------
    ParsedProgram
        With ``log_density``, ``constrain``, ``unconstrain`` and the sites, for algorithms of one's own.

    Raises
    ------
    ModelError
        The program breaks the contract; the message names the site and the remedy.

    Examples
    --------
    >>> hx.program(model, pop).program.effect_names
    ('eta',)
    """
    return ParsedProgram(read_program(model, pop, plate), pop)


def check(model: Model, pop: Population, *, plate: str = "subject", show: bool = True) -> pd.DataFrame:
    """Check a program against a population, and print the class, distribution, shape and start of each site.

    Warns of probable mistakes: a data site that counts rows which are not observations, a lag time longer than II at a
    steady-state dose, a vector field that reads t under a steady-state dose or that jumps inside a step. Harmless
    findings, such as parameters of doses that the data do not have, are printed below the table.

    Parameters
    ----------
    model : callable
        NumPyro program, a function of the population.
    pop : Population
    plate : str
        Name of the subject plate.
    show : bool
        Whether to print the table.

    Returns
    -------
    pandas.DataFrame
        One row per site: class, distribution or constraint, shape, prior, start.

    Raises
    ------
    ModelError
        As :func:`program`.

    Examples
    --------
    >>> hx.check(model, pop, show=False)['class'].tolist()
    ['population parameter', 'population parameter', 'population parameter', 'random effect', 'data']
    """
    parsed = read_program(model, pop, plate)
    table = site_table(parsed)
    harmless = warn_of_data(parsed.sites, pop)
    harmless += unobserved(parsed, pop, parsed.start())
    if show:
        notes = "".join(f"\n{text}" for text in harmless)
        print(f"{len(pop)} subjects, {pop.n_observations} observations\n{table.to_string()}{notes}")
    return table


def site_table(parsed: Program) -> pd.DataFrame:
    """Return the table of sites of a parsed program."""
    rows: dict[str, dict[str, Any]] = {}
    for name, site in parsed.sites.population.items():
        weights = site.kind == "weights"
        rows[name] = {
            "class": "network weights" if weights else "population parameter",
            "distribution or constraint": site.constraint,
            "shape": f"{_count(site.start)} numbers" if weights else site.shape,
            "prior": type(site.prior).__name__ if site.prior is not None else "",
            "start": "" if weights else np.array2string(np.asarray(site.start), precision=4, threshold=6),
        }
    for name, effect in parsed.sites.effects.items():
        rows[name] = {
            "class": "random effect",
            "distribution or constraint": f"{effect.distribution} ({effect.label})",
            "shape": effect.shape,
        }
    for name, data in parsed.sites.data.items():
        shape = np.shape(parsed.sites.messages[name]["value"])
        rows[name] = {"class": "factor" if data.factor else "data", "distribution or constraint": data.distribution}
        rows[name]["shape"] = shape
    for name, shape in parsed.sites.individual.items():
        rows[name] = {"class": "individual parameter", "shape": shape}
    return pd.DataFrame.from_dict(rows, orient="index").fillna("")


def _count(tree: Any) -> int:
    import jax

    return int(sum(np.size(leaf) for leaf in jax.tree.leaves(tree)))
