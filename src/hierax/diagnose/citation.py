"""``hx.citation``: what to cite for a fit."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from hierax.diagnose.references import REFERENCES, Reference
from hierax.dynamics.ode.adaptive import Adaptive
from hierax.dynamics.ode.grid import Grid
from hierax.results.fit import Evaluation, Fit

# Keys of the libraries that every fit uses.
_LIBRARIES = ("numpyro", "jax", "arviz")
# Methods of the solver on a fixed grid, and the keys of the articles that describe them.
_GRIDS = {"tsit5": "tsitouras2011", "dopri8": "prince1981"}


def citation(fit: Evaluation) -> str:
    """Return what to cite for a fit: Hierax, the method, the solvers of ODEs, and the libraries that did the work.

    Parameters
    ----------
    fit : Fit or Evaluation
        A fit by any estimator.

    Returns
    -------
    str
        BibTeX entries, with an empty line between them.

    Examples
    --------
    >>> import hierax as hx
    >>> print(hx.citation(fit))  # doctest: +SKIP
    """
    entries = {"hierax": _hierax(), **{key: REFERENCES[key] for key in _keys(fit)}}
    return "\n\n".join(entry.bibtex(key) for key, entry in entries.items())


def _hierax() -> Reference:
    version = importlib.metadata.version("hierax")
    where = {"note": f"Version {version}", "howpublished": "Python package"}
    title = "Hierax: nonlinear mixed-effects models as NumPyro programs"
    return Reference("misc", "{The Hierax developers}", title, 2026, where)


def _keys(fit: Evaluation) -> list[str]:
    """Return the keys of all methods and libraries that a fit uses, each once."""
    method = fit.method if isinstance(fit, Fit) else None
    keys = [*(method.references if method is not None else ()), *fit.approximation.references]
    if isinstance(fit, Fit) and fit.usual_covariance == "louis":
        keys.append("louis1982")
    for name in fit.program.sites.odes:
        keys += _of_solver(fit.program.sites.messages[name]["solver"])
    keys += _LIBRARIES
    if fit.layout.weights().any():
        keys.append("flax")
    if isinstance(fit, Fit) and method is None:
        keys.append("optimistix")
    return list(dict.fromkeys(keys))


def _of_solver(solver: Any) -> list[str]:
    if isinstance(solver, Grid):
        return [_GRIDS[solver.method], "diffrax"]
    if isinstance(solver, Adaptive):
        implicit = type(solver.solver).__name__.startswith("Kvaerno")
        return ["kvaerno2004", "diffrax"] if implicit else ["diffrax"]
    return []
