"""``hx.fit``, ``hx.evaluate`` and ``hx.ebe``: from a model, a population and an estimator to results."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from hierax.arguments import mapping, path_of, whole
from hierax.data.population import Population
from hierax.errors import FitError, tell
from hierax.infer.fitting.interrupted import interrupted
from hierax.infer.fitting.job import Job
from hierax.infer.fitting.outcome import evaluated_fields, with_modes
from hierax.infer.marginal.estimator import Estimator
from hierax.infer.marginal.laplace import Laplace
from hierax.infer.marginal.objective import Evaluated
from hierax.infer.marginal.session import Session
from hierax.infer.procedure import Procedure
from hierax.infer.result import Result
from hierax.infer.run.checkpoint import Checkpoint
from hierax.infer.run.owner import option_parts, owner, population_parts
from hierax.program.checking.survey import warn_of_data
from hierax.program.parameters import Fixed, layout
from hierax.program.priors import UsePriors, collect_priors, counting
from hierax.program.read import read_program
from hierax.program.trace import Model
from hierax.results.fit import Evaluation, Fit
from hierax.results.flow_check import with_flow_check
from hierax.results.priors import priors_of
from hierax.results.trouble import explain_non_finite

# Whether the warning about float32 was given: once in a process is enough.
_warned_float32 = False


def fit(
    model: Model,
    pop: Population,
    estimator: Estimator | Procedure,
    *,
    init: Mapping[str, Any] | Fit | None = None,
    fixed: Fixed = None,
    priors: Mapping[str, Any] | Fit | None = None,
    use_priors: UsePriors = "auto",
    starts: int = 1,
    seed: int = 0,
    progress: bool = True,
    checkpoint: str | Path | None = None,
    every: float = 60.0,
    resume: bool = True,
    throw: bool = False,
    held_out: Population | None = None,
    patience: int | None = None,
    plate: str = "subject",
) -> Fit:
    """Fit the population parameters of a program.

    Parameters
    ----------
    model : callable
        NumPyro program: a function of the population.
    pop : Population
        The data.
    estimator : FO, FOCE, Laplace, AGQ, NaivePooled or SAEM
        The approximation of the marginal likelihood that is maximised, or the algorithm, with its options.
    init : mapping or Fit, optional
        Site → constrained start value. A site that is not named starts at its ``param``'s own value, or at its prior's
        median. A previous fit gives its estimates to the sites of the same names.
    fixed : sequence of str or mapping, optional
        Sites to hold at their start; or site → mask of the elements to hold.
    priors : mapping or Fit, optional
        Site → NumPyro distribution, which replaces the program's prior of that site, if it has one. For network weights
        (``"net$params"``) also a dict from dotted path to distribution, or a ``callable(path, shape)``. A previous fit
        stands for the asymptotic distribution of its estimates.
    use_priors : {"auto", True, False}
        Which priors count as a penalty: all, none, or (``"auto"``) those of network weights alone; with a Bayesian
        estimator ``"auto"`` means all.
    starts : int
        Number of starts: the first at ``init``, the others around the program's own start values, at unconstrained
        distances uniform in [-1, 1]. The best objective is kept; ``history`` has all.
    seed : int
        Seed of the further starts.
    progress : bool
        Whether to show iteration, objective, gradient norm and time.
    checkpoint : path, optional
        File to which the state of the fit is written, atomically, every ``every`` seconds, on Ctrl-C and on SIGTERM. A
        resumed fit gives bitwise the same result as an uninterrupted one.
    every : float
        Seconds between two writings.
    resume : bool
        Whether to go on from the checkpoint where there is one; it must be of the same fit.
    throw : bool
        Whether a fit that does not converge raises :class:`FitError`.
    held_out : Population, optional
        Subjects for early stopping, for VI, SAEM and maximised approximations: their marginal likelihood, by Laplace's
        approximation, is computed after every 100 steps of VI, every 25 iterations of SAEM, or every accepted step
        of a search. The fit ends after ``patience`` such evaluations without a rise, and returns the parameters at
        which this likelihood was highest.
    patience : int, optional
        Number of evaluations of ``held_out`` without a rise after which the fit ends; 5 by default.
    plate : str
        Name of the subject plate.

    Returns
    -------
    Fit
        After Ctrl-C, the results that were known by then.

    Raises
    ------
    ModelError, EstimatorError, ValueError
        Before anything is compiled, saying what is wrong and what to do.

    Examples
    --------
    >>> found = hx.fit(model, pop, hx.FOCE(), progress=False)
    >>> round(found.ofv, 3)
    -4.242
    """
    _warn_float32()
    _check_arguments(model, pop, estimator)
    _check_options(estimator, starts, patience, held_out, every, seed)
    file = Checkpoint(path_of("checkpoint", checkpoint), every, resume)
    with file.held():
        job = prepare(
            model, pop, estimator, init=init, fixed=fixed, priors=priors, use_priors=use_priors, seed=seed,
            progress=progress, plate=plate,
        )  # fmt: skip
        job.starts, job.checkpoint = starts, file
        if held_out is not None:
            job.held_out, job.patience = held_out, 5 if patience is None else patience
        if file.path is not None:
            file.owner = _owner(job, estimator)
        out = _run(job, estimator)
    _tell(out, throw)
    return out


def _run(job: Job, estimator: Estimator | Procedure) -> Fit:
    """Run a job and return its fit, or a fit of what is known so far if the user interrupts it."""
    objective = estimator.objective if isinstance(estimator, Procedure) else estimator
    try:
        found = Fit.from_outcome(estimator.run(job), job, estimator)
        return with_flow_check(found, job.flat)
    except KeyboardInterrupt:
        return Fit.from_outcome(interrupted(job, objective), job, estimator)


def prepare(
    model: Model,
    pop: Population,
    estimator: Estimator | Procedure,
    *,
    init: Mapping[str, Any] | Evaluation | None = None,
    fixed: Fixed = None,
    priors: Mapping[str, Any] | Fit | None = None,
    use_priors: UsePriors = "auto",
    seed: int = 0,
    progress: bool = False,
    plate: str = "subject",
) -> Job:
    """Read the program and lay out its parameters, start values and priors."""
    program = read_program(model, pop, plate)
    places = layout(program)
    given = priors_of(priors) if isinstance(priors, Fit) else mapping("priors", priors, "names to distributions")
    everything = collect_priors(program, given)
    if isinstance(init, Evaluation):
        init = {name: init.params[name] for name in places.slices if name in init.params}
    flat = places.start(init)
    warn_of_data(program.sites, pop, places.params(flat))
    every = estimator.bayesian and use_priors == "auto"
    return Job(
        program=program,
        pop=pop,
        layout=places,
        flat=flat,
        free=places.free(fixed),
        priors=everything,
        counted=dict(everything) if every else counting(program, everything, use_priors),
        given=given,
        use_priors=use_priors,
        seed=seed,
        progress=progress,
        explain=_explain,
    )


def _explain(session: Session, flat: np.ndarray, out: Evaluated) -> str:
    """Return a sentence for a message that says where a density is not finite, and why."""
    return explain_non_finite(Evaluation(**evaluated_fields(session, flat, out)))


def _owner(job: Job, estimator: Any) -> dict[str, str]:
    """Return what identifies the fit that a checkpoint belongs to: its program, data, start values and options."""
    held_out = {} if job.held_out is None else population_parts(job.held_out, "held-out ")
    return {
        **owner(job.program, job.pop, job.counted),
        "parameters": ", ".join(job.layout.names()),
        "start values": hashlib.sha256(job.flat.tobytes()).hexdigest()[:12],
        "fixed=": hashlib.sha256(job.free.tobytes()).hexdigest()[:12],
        "seed": str(job.seed),
        "starts": str(job.starts),
        "patience": str(job.patience) if held_out else "",
        **held_out,
        **option_parts(estimator, "estimator"),
    }


def evaluate(
    model: Model,
    pop: Population,
    params: Mapping[str, Any] | Evaluation,
    estimator: Estimator,
    *,
    priors: Mapping[str, Any] | Fit | None = None,
    use_priors: UsePriors = "auto",
    plate: str = "subject",
) -> Evaluation:
    """Return the objective, per-subject values and EBEs at fixed parameters (NONMEM's MAXEVAL=0).

    Parameters
    ----------
    model, pop, estimator, plate
        As for :func:`fit`.
    params : mapping
        Site → constrained value; sites left out take their start. A fit gives its estimates to the sites of the same
        names.
    priors, use_priors
        As for :func:`fit`. ``penalty`` of the result is −log density of the priors that count, which the objective does
        not contain; ``ignored_priors`` are the others. With ``"auto"`` those of network weights count alone, as they
        do in a fit by this estimator.

    Returns
    -------
    Evaluation
        ``.ofv``, ``.subject_objective``, ``.ebe`` and everything else of a fit that needs no search.

    Examples
    --------
    >>> round(hx.evaluate(model, pop, {}, hx.FOCE()).ofv, 4)
    -2.0588
    """
    _warn_float32()
    _check_arguments(model, pop, estimator)
    if isinstance(estimator, Procedure):
        raise ValueError(
            f"evaluate gives an approximation of the marginal likelihood, but {estimator.label} is not one. Use "
            f"hx.{type(estimator.objective).__name__}(), or hx.log_likelihood(fit, method)."
        )
    if not isinstance(params, Mapping | Evaluation | None):
        raise ValueError(f"params is a {type(params).__name__}. Pass a mapping of site to value, or a fit.")
    job = prepare(model, pop, estimator, init=params, priors=priors, use_priors=use_priors, plate=plate)
    session = job.session(estimator)
    out = with_modes(session, job.flat, session.value(job.flat))
    penalty = session.penalty(job.flat)[0] if job.counted else 0.0
    ignored = job.record()["ignored_priors"]
    return Evaluation(**evaluated_fields(session, job.flat, out), penalty=penalty, ignored_priors=ignored)


def ebe(model: Model, pop: Population, params: Mapping[str, Any] | Evaluation, *, plate: str = "subject") -> xr.Dataset:
    """Return the empirical Bayes estimates at fixed parameters: modes, their SDs, individual parameters.

    Parameters
    ----------
    model, pop, plate
        As for :func:`fit`.
    params : mapping or Fit
        Population parameters, constrained; those left out take their start.

    Returns
    -------
    xarray.Dataset
        ``eta`` in working coordinates and its SDs, and the individual parameters, by ``subject``.

    Examples
    --------
    >>> hx.ebe(model, pop, fit)['eta'].dims
    ('subject', 'eta_name')
    """
    return evaluate(model, pop, params, Laplace(), plate=plate).ebe


def _check_arguments(model: Any, pop: Any, estimator: Any) -> None:
    """Refuse a model, population or estimator of a wrong type."""
    if isinstance(estimator, type) and issubclass(estimator, Estimator | Procedure):
        raise ValueError(f"The estimator is the class {estimator.__name__} itself. Write hx.{estimator.__name__}().")
    if not isinstance(estimator, Estimator | Procedure):
        raise ValueError(
            f"The estimator is {estimator!r}. Use hx.FO(), hx.FOCE(), hx.Laplace(), hx.AGQ(n), hx.SAEM(), ..."
        )
    if not isinstance(pop, Population):
        raise ValueError(f"The population is a {type(pop).__name__}. Make one with hx.read_nonmem(table).")
    if not callable(model):
        raise ValueError(f"The model is a {type(model).__name__}, but must be a function of the population.")


def _check_options(estimator: Any, starts: Any, patience: Any, held_out: Any, every: Any, seed: Any) -> None:
    """Refuse invalid options, and ``patience`` without ``held_out``, which would have no effect."""
    whole("starts", starts, 1)
    whole("seed", seed, 0)
    if patience is not None:
        whole("patience", patience, 1)
    if patience is not None and held_out is None:
        raise ValueError(
            f"patience={patience} counts evaluations of held-out subjects, but there are none. Pass held_out=, or "
            f"leave patience out."
        )
    if held_out is not None and not isinstance(held_out, Population):
        raise ValueError(f"held_out is a {type(held_out).__name__}. Pass a Population, such as pop[rows].")
    if held_out is not None and not estimator.stops_early:
        raise ValueError(f"held_out= stops VI, SAEM and maximised approximations early, not {estimator.label}.")
    if starts != 1 and not estimator.several_starts:
        raise ValueError(
            f"starts={starts} is for maximised approximations (FOCE, ...). Call fit once for each init= instead."
        )
    if not every >= 0:
        raise ValueError(f"every={every!r} must be a number of seconds, 0 (at every step) or more.")


def _tell(out: Fit, throw: bool) -> None:
    """Warn once, or raise, where a fit did not converge."""
    if out.result is Result.converged:
        return
    text = f"The fit did not converge ({out.result.name}): {out.why}."
    if out.result in (Result.non_finite, Result.did_not_move):
        text += explain_non_finite(out)
    if throw:
        raise FitError(text)
    tell(text)


def _warn_float32() -> None:
    global _warned_float32
    if not jax.config.read("jax_enable_x64") and not _warned_float32:
        _warned_float32 = True
        tell(
            "JAX is in float32, and marginal likelihoods need float64: expect noise in the objective. "
            "Call numpyro.enable_x64() before anything else.",
        )
