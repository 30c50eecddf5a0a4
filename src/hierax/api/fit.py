"""``hx.fit``, ``hx.evaluate`` and ``hx.ebe``: from a model, a population and an estimator to results."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import xarray as xr

from hierax.api.bayes import fit_marginal_nuts, fit_nuts, need_priors
from hierax.api.interrupted import interrupted_fit
from hierax.api.job import Job, prepare
from hierax.api.marginal import fit_marginal
from hierax.api.saem import fit_saem
from hierax.api.vi import fit_vi
from hierax.arguments import path_of, whole
from hierax.data.population import Population
from hierax.errors import EstimatorError, FitError, tell
from hierax.infer.marginal.estimator import Estimator
from hierax.infer.marginal.laplace import Laplace
from hierax.infer.mcmc.nuts import MAP, NUTS, JointMAP, MarginalNUTS
from hierax.infer.procedure import Procedure
from hierax.infer.result import Result
from hierax.infer.run.checkpoint import Checkpoint
from hierax.infer.run.owner import option_parts, owner, population_parts
from hierax.infer.saem.importance_em import ImportanceEM
from hierax.infer.saem.saem import SAEM
from hierax.infer.vi.vi import VI
from hierax.program.parameters import Fixed
from hierax.program.priors import UsePriors
from hierax.program.trace import Model
from hierax.results.fit import Evaluation, Fit
from hierax.results.outcome import evaluated_fields, with_modes

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
        Site → constrained start value. Else a ``param``'s own value, else the prior's median. A previous fit: its
        estimates, for the sites of the same names.
    fixed : sequence of str or mapping, optional
        Sites to hold at their start; or site → elementwise mask of what to hold.
    priors : mapping or Fit, optional
        Site → NumPyro distribution; adds to the program's priors or replaces them. For ``"net$params"`` also a dict
        by dotted path or a ``callable(path, shape)``. A previous fit: the asymptotic distribution of its estimates.
    use_priors : {"auto", True, False}
        Whose priors count as a penalty: those of network weights alone (auto), all, or none.
    starts : int
        Number of starts: the first at ``init``, the others around the program's own start values, at unconstrained
        distances uniform in [-1, 1]. The best objective is kept; ``history`` has all.
    seed : int
        Seed of the further starts.
    progress : bool
        Whether to show iteration, objective, gradient norm and time.
    checkpoint : path, optional
        File that the state of the fit is written to, atomically, every so many seconds, on Ctrl-C and on SIGTERM. A
        resumed fit ends bitwise where an uninterrupted one does.
    every : float
        Seconds between two writings.
    resume : bool
        Whether to go on from the checkpoint where there is one; it must be of the same fit.
    throw : bool
        Whether a fit that does not converge raises :class:`FitError`.
    held_out : Population, optional
        Subjects for early stopping, for VI, SAEM and maximised approximations: their marginal likelihood, by Laplace's
        approximation, is looked at after every 100 steps of VI, every 25 iterations of SAEM, or every accepted step
        of a search. The fit ends after ``patience`` looks without a rise, and returns the parameters that made them
        most likely.
    patience : int, optional
        How many looks; 5 by default.
    plate : str
        Name of the subject plate.

    Returns
    -------
    Fit
        Also after Ctrl-C, with what there was by then.

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
    _check_options(starts, patience, held_out, every, seed)
    file = Checkpoint(path_of("checkpoint", checkpoint), every, resume)
    with file.held():
        out = _run(
            model, pop, estimator, file, init=init, fixed=fixed, priors=priors, use_priors=use_priors, starts=starts,
            seed=seed, progress=progress, held_out=held_out, patience=patience, plate=plate,
        )  # fmt: skip
    _tell(out, throw)
    return out


def _run(
    model: Model, pop: Population, estimator: Estimator | Procedure, file: Checkpoint, *, starts: int,
    held_out: Population | None, patience: int | None, **options: Any
) -> Fit:  # fmt: skip
    """Prepare a fit and run it, whatever algorithm does it."""
    job = prepare(model, pop, bayesian=isinstance(estimator, Procedure) and estimator.bayesian, **options)
    if held_out is not None:
        if isinstance(estimator, Procedure) and not isinstance(estimator, VI | SAEM):
            raise ValueError(f"held_out= stops VI, SAEM and maximised approximations early, not {estimator.label}.")
        job.held_out, job.patience = held_out, 5 if patience is None else patience
    if file.path is not None:
        file.owner = _owner(job, estimator, starts)
    if isinstance(estimator, Procedure):
        if starts != 1:
            raise ValueError(f"starts={starts} is for maximised approximations (FOCE, ...). Call fit with other inits.")
    try:
        if isinstance(estimator, Procedure):
            return _runner(estimator)(job, estimator, file)
        return fit_marginal(job, estimator, starts, file)
    except KeyboardInterrupt:
        return interrupted_fit(job, estimator)


def _runner(procedure: Procedure) -> Callable[..., Fit]:
    """Return what runs an algorithm: the one of its class, or of the nearest class that it derives from."""
    for kind in type(procedure).__mro__:
        if kind in _PROCEDURES:
            return _PROCEDURES[kind]
    raise EstimatorError(
        f"{type(procedure).__name__} derives from none of {[kind.__name__ for kind in _PROCEDURES]}, so that it is not "
        f"known how to run it. Derive it from the algorithm that it changes."
    )


def _fit_map(job: Job, procedure: Procedure, checkpoint: Checkpoint) -> Fit:
    """Maximise an objective whose priors all count; see :class:`hierax.MAP` and :class:`hierax.JointMAP`."""
    if isinstance(procedure, JointMAP):
        need_priors(job, "JointMAP")
    elif not job.counted:
        tell(
            "MAP finds no prior of a population parameter, so that it maximises the likelihood alone. Pass priors=, or "
            "write these parameters as sample sites."
        )
    out = fit_marginal(job, procedure.objective, 1, checkpoint)
    out.method = procedure
    return out


_PROCEDURES: dict[type, Callable[..., Fit]] = {
    SAEM: fit_saem,
    ImportanceEM: fit_saem,
    VI: fit_vi,
    NUTS: fit_nuts,
    MarginalNUTS: fit_marginal_nuts,
    MAP: _fit_map,
    JointMAP: _fit_map,
}


def _owner(job: Job, estimator: Any, starts: int) -> dict[str, str]:
    """Return what a checkpoint belongs to."""
    held_out = {} if job.held_out is None else population_parts(job.held_out, "held-out ")
    return {
        **owner(job.program, job.pop, job.counted),
        "parameters": ", ".join(job.layout.names()),
        "start values": hashlib.sha256(job.flat.tobytes()).hexdigest()[:12],
        "fixed=": hashlib.sha256(job.free.tobytes()).hexdigest()[:12],
        "seed": str(job.seed),
        "starts": str(starts),
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
        Site → constrained value; sites left out take their start. Or a fit: its estimates, for the sites of the
        same names.
    priors, use_priors
        As for :func:`fit`. ``penalty`` of the result is −log density of the priors that count, which the objective does
        not contain; ``ignored_priors`` are the others. With ``"auto"`` those of network weights count alone, as they
        do in a fit by this estimator.

    Returns
    -------
    Evaluation
        ``.ofv``, ``.subject_objective``, ``.ebe`` and what else a fit has that needs no search.

    Examples
    --------
    >>> round(hx.evaluate(model, pop, {}, hx.FOCE()).ofv, 4)
    -2.0588
    """
    _warn_float32()
    _check_arguments(model, pop, estimator)
    if isinstance(estimator, Procedure):
        raise ValueError(
            f"evaluate gives an approximation of the marginal likelihood, and {estimator.label} is none. Use "
            f"hx.{type(estimator.objective).__name__}(), or hx.log_likelihood(fit, method)."
        )
    if not isinstance(params, Mapping | Evaluation | None):
        raise ValueError(f"params is a {type(params).__name__}. Pass a mapping of site to value, or a fit.")
    job = prepare(
        model, pop, init=params, fixed=None, priors=priors, use_priors=use_priors, seed=0, progress=False, plate=plate
    )
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
    """Refuse the usual slips of the three main arguments."""
    if isinstance(estimator, type) and issubclass(estimator, Estimator | Procedure):
        raise ValueError(f"The estimator is the class {estimator.__name__} itself. Write hx.{estimator.__name__}().")
    if not isinstance(estimator, Estimator | Procedure):
        raise ValueError(
            f"The estimator is {estimator!r}. Use hx.FO(), hx.FOCE(), hx.Laplace(), hx.AGQ(n), hx.SAEM(), ..."
        )
    if not isinstance(pop, Population):
        raise ValueError(f"The population is a {type(pop).__name__}. Make one with hx.read_nonmem(table).")
    if not callable(model):
        raise ValueError(f"The model is a {type(model).__name__}, no function of the population. Pass the function.")


def _check_options(starts: Any, patience: Any, held_out: Any, every: Any, seed: Any) -> None:
    """Refuse options that ask for nothing, or that would be left out without a word."""
    whole("starts", starts, 1)
    whole("seed", seed, 0)
    if patience is not None:
        whole("patience", patience, 1)
    if patience is not None and held_out is None:
        raise ValueError(
            f"patience={patience} counts looks at held-out subjects, of which there are none. Pass held_out=, or leave "
            f"patience out."
        )
    if held_out is not None and not isinstance(held_out, Population):
        raise ValueError(f"held_out is a {type(held_out).__name__}. Pass a Population, such as pop[rows].")
    if not every >= 0:
        raise ValueError(f"every={every!r} is no number of seconds. Give 0 (at every step) or more.")


def _tell(out: Fit, throw: bool) -> None:
    """Warn once, or raise, where a fit did not converge."""
    if out.result is Result.converged:
        return
    from hierax.results.trouble import explain_non_finite

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
