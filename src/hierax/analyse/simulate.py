"""``hx.simulate`` and ``hx.predict``: new data, and predictions, from a program or a fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr

from hierax.data.named import warn_of_other_labels
from hierax.data.population import Population
from hierax.errors import ModelError
from hierax.infer.simulate.simulation import draw, reads_data
from hierax.program.checking.survey import warn_of_data
from hierax.program.density import Program
from hierax.program.read import read_program
from hierax.program.trace import Model
from hierax.results.fit import Evaluation
from hierax.results.individual import predictions
from hierax.results.uncertainty.parameter_draws import drawn_parameters, how_drawn


def simulate(
    model: Model | Evaluation,
    pop: Population | None = None,
    *,
    params: Mapping[str, Any] | None = None,
    n: int = 1,
    seed: int = 0,
    parameters: Any = None,
    plate: str = "subject",
) -> xr.Dataset:
    """Simulate new data at the design of a population: new random effects, new residual errors.

    Parameters
    ----------
    model : callable or Fit
        NumPyro program, or a fit (its program, parameters and, unless ``pop`` is given, its population).
    pop : Population, optional
        The design: times, doses, covariates.
    params : mapping, optional
        Constrained population parameters; those left out have the fit's values, or their start values.
    n : int
        Number of replicates of the population.
    seed : int
        Seed of the draws.
    plate : str
        Name of the subject plate.
    parameters : {"draws", "estimate"}, SIR, Bootstrap or DataFrame, optional
        Population parameters of the replicates. With ``"draws"``, each replicate has its own, drawn from the posterior
        (NUTS, VI with a guide of the population parameters) or else from the estimates' asymptotic normal distribution.
        With what :func:`hierax.sir` or :func:`hierax.bootstrap` returned, each has one of its rows. With
        ``"estimate"``, all have the fit's estimate. The default is ``"draws"`` where there is a posterior, so that the
        replicates are draws of the posterior predictive distribution, and otherwise ``"estimate"``. The result's
        ``attrs["parameters"]`` says which were used.

    Returns
    -------
    xarray.Dataset
        Endpoints ``(draw, subject, time)`` at every record of the design (padding is NaN), individual parameters
        ``(draw, subject)``, random effects; ``TIME`` ``(subject, time)``.

    Notes
    -----
    A program that reads ``pop.dv`` (AR(1) written as y_j given y_(j-1), a Markov model) is simulated record by record,
    each given what was drawn before it. The simulated data are then NaN at records that are not observations of the
    endpoint; in a design without observations, all records except doses are drawn. Previous values that were stored in
    a column beforehand (a covariate, ``with_data``) are not replaced by simulated ones.

    Examples
    --------
    >>> hx.simulate(fit, n=3, seed=1)['dv'].sizes['draw']
    3
    """
    fit = model if isinstance(model, Evaluation) else None
    flats = drawn_parameters(fit, parameters, n, seed)
    program, design, values = _resolve(model, pop, params, plate)
    given = values if flats is None else dict(params or {})
    drawn = draw(program, design, given, n, seed, flats=flats)
    rows = np.flatnonzero(np.asarray(design.subject_mask))
    held = np.asarray(design.record_mask)[rows]
    out = _labelled(design, rows)
    for name, value in drawn.items():
        if name in program.sites.data and value.shape[1:] == np.shape(design.times):
            out[name] = (("draw", "subject", "time"), np.where(held, value[:, rows], np.nan))
        elif value.ndim > 1 and value.shape[1] == design.n_subjects:
            value = value[:, rows]
            value = value[:, :, 0] if value.ndim > 2 and value.shape[2] == 1 else value
            rest = tuple(f"{name}_dim_{axis}" for axis in range(2, value.ndim))
            out[name] = (("draw", "subject", *rest), value)
    return out.assign_attrs(parameters=how_drawn(fit, parameters))


def predict(
    model: Model | Evaluation,
    pop: Population | None = None,
    *,
    params: Mapping[str, Any] | None = None,
    random_effects: Any = None,
    plate: str = "subject",
) -> xr.Dataset:
    """Predict at every record of a population: PRED, and with a fit of that population IPRED.

    Parameters
    ----------
    model : callable or Fit
        NumPyro program, or a fit. With a fit and no ``pop``, individual predictions at the fit's EBEs are added.
    pop, params, plate
        As for :func:`simulate`.
    random_effects : array, (subject, coordinate), optional
        Random effects at which individual predictions are made, in the coordinates of ``fit.embeddings()``. The program
        then serves as the decoder of a generative model, for any subjects.

    Returns
    -------
    xarray.Dataset
        ``PRED_<endpoint>`` and ``IPRED_<endpoint>``, ``(subject, time)``: means of the observation's distribution
        at the reference point of the random effects, and at the EBEs (or ``random_effects``). For a program that
        reads ``pop.dv`` they are conditional on the subject's earlier observations.

    Examples
    --------
    >>> hx.predict(fit)['IPRED_dv'].sizes['subject']
    10
    """
    program, design, values = _resolve(model, pop, params, plate)
    rows = np.flatnonzero(np.asarray(design.subject_mask))
    given = None if random_effects is None else _random_effects(program, design, rows, random_effects)
    held = np.asarray(design.record_mask)[rows]
    out = _labelled(design, rows)
    if given is None and isinstance(model, Evaluation) and pop is None:
        given = model.eta
    _refuse_unread(program, design)
    for label, eta in (("PRED", None), *((("IPRED", given),) if given is not None else ())):
        for name, (mean, _, _) in predictions(program, design, values, eta)[0].items():
            if np.shape(mean) == np.shape(design.times):
                out[f"{label}_{name}"] = (("subject", "time"), np.where(held, np.asarray(mean)[rows], np.nan))
    return out


def _refuse_unread(program: Program, design: Population) -> None:
    """Refuse to predict from earlier observations where the design has none."""
    reading = reads_data(program, design)
    empty = [name for name in design.dv if name in program.sites.data and not np.asarray(design.mask[name]).any()]
    if reading and empty:
        raise ModelError(
            f"{sorted(reading)} depends on earlier observations (pop.dv), but the design has no observations of "
            f"{empty}, so that its predictions would be those after observations of 0. Use hx.simulate, which draws "
            f"record by record, or give the design its observations (pop.with_dv)."
        )


def _random_effects(program: Program, design: Population, rows: np.ndarray, given: Any) -> np.ndarray:
    """Return the given random effects with a row for every subject of the design, padding included."""
    values, names = np.asarray(given, float), program.effect_names
    if values.shape != (len(rows), len(names)):
        raise ValueError(
            f"random_effects has shape {values.shape}, but the population has {len(rows)} subjects and the program "
            f"the random effects {list(names)}. Give (subject, coordinate)."
        )
    out = np.zeros((design.n_subjects, len(names)))
    out[rows] = values
    return out


def _resolve(
    model: Model | Evaluation, pop: Population | None, params: Mapping[str, Any] | None, plate: str
) -> tuple[Program, Population, dict[str, Any]]:
    """Return program, design and complete population parameters."""
    given = dict(params or {})
    if isinstance(model, Evaluation):
        design = model.pop if pop is None else pop
        if pop is not None:
            warn_of_other_labels(model.pop, design)
            program = read_program(model.program.model, design, model.program.plate, checked=False)
            warn_of_data(program.sites, design, {**model.params, **given}, observed=False)
        else:
            program = model.program
        _check_params(program, given)
        return program, design, {**model.params, **given}
    if pop is None:
        raise ValueError("simulate and predict need a population with a model function. Give pop=, or pass a fit.")
    program = read_program(model, pop, plate)
    _check_params(program, given)
    warn_of_data(program.sites, pop, {**program.start(), **given}, observed=False)
    return program, pop, {**program.start(), **given}


def _check_params(program: Program, given: Mapping[str, Any]) -> None:
    """Refuse names that the program does not have, and values outside their constraints."""
    unknown = sorted(set(given) - set(program.sites.population))
    if unknown:
        raise ValueError(
            f"params names {unknown}, but the population parameters of the program are "
            f"{list(program.sites.population)}."
        )
    for name, value in given.items():
        site = program.sites.population[name]
        if site.kind == "weights":
            continue
        # Values at the end of their range are allowed: a simulation without noise has a scale of 0.
        ends = [site.transform.codomain(jnp.asarray(value, float) + away) for away in (0.0, 1e-9, -1e-9)]
        if not np.any([np.asarray(one).all() for one in ends]):
            raise ValueError(
                f"params gives '{name}' the value {value}, which is outside its constraint ({site.constraint}). Give a "
                f"value inside it."
            )


def _labelled(design: Population, rows: np.ndarray) -> xr.Dataset:
    times = np.where(np.asarray(design.record_mask)[rows], np.asarray(design.times)[rows], np.nan)
    return xr.Dataset({"TIME": (("subject", "time"), times)}, coords={"subject": design.subject_ids})
