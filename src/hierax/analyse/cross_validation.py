"""``hx.cross_validate``: which of several models, sizes or penalties predicts unseen subjects best."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
import pandas as pd

from hierax.analyse.executors import run_all
from hierax.data.population import Population
from hierax.errors import quietly
from hierax.estimate import fit as fit_once
from hierax.infer.marginal.importance import ImportanceSampling
from hierax.infer.result import Result
from hierax.results.likelihood import log_likelihood


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One of the models to choose from.

    Parameters
    ----------
    model : callable
        NumPyro program.
    estimator : estimator, or a sequence of them, optional
        Estimator of this candidate, where it differs from the one given to :func:`cross_validate`. Each of a sequence,
        such as VI and then FOCE, starts where the one before it ended.
    options : mapping
        Further arguments of :func:`hierax.fit`: ``priors`` (the penalty of weights), ``init``, ``fixed``, ``seed``.

    Examples
    --------
    >>> hx.Candidate(model, hx.FOCE()).options
    {}
    """

    model: Any
    estimator: Any = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class CrossValidation:
    """Held-out log likelihoods of every candidate.

    Attributes
    ----------
    subjects : pandas.DataFrame, (subject, candidate)
        Log marginal likelihood of each subject by the fit that has not seen it; NaN where that fit failed.
    folds : pandas.Series
        Which fold each subject was in.
    results : pandas.DataFrame, (fold, candidate)
        How each fit ended.
    label : str
        Name of the method that computed the likelihoods.

    Examples
    --------
    >>> found = hx.cross_validate({'decay': model}, pop, hx.FOCE(), folds=2)
    >>> list(found.subjects)
    ['decay']
    """

    subjects: pd.DataFrame
    folds: pd.Series
    results: pd.DataFrame
    label: str

    @property
    def table(self) -> pd.DataFrame:
        """Candidates from best to worst: mean held-out log likelihood, difference to the best with its SE, failures.

        The SE of a difference is computed from the subjects' paired differences. A candidate with a failed fold comes
        last.
        """
        mean = self.subjects.mean(skipna=False)
        best = mean.idxmax() if mean.notna().any() else mean.index[0]
        apart = self.subjects.sub(self.subjects[best], axis=0)
        table = pd.DataFrame(
            {
                "log_likelihood": mean,
                "se": self.subjects.std(ddof=1) / np.sqrt(len(self.subjects)),
                "difference": apart.mean(skipna=False),
                "difference_se": apart.std(ddof=1) / np.sqrt(len(apart)),
                "not_converged": (self.results != Result.converged.name).sum(),
            }
        )
        return table.sort_values("log_likelihood", ascending=False, na_position="last")

    @property
    def best(self) -> str:
        """Name of the candidate with the highest mean held-out log likelihood."""
        return str(self.table.index[0])

    def __repr__(self) -> str:
        return f"Held-out log likelihood a subject, by {self.label}\n{self.table.to_string(float_format='%.4f')}"


def cross_validate(
    candidates: Mapping[str, Any],
    pop: Population,
    estimator: Any,
    *,
    folds: int = 5,
    method: Any = None,
    executor: Executor | None = None,
    seed: int = 0,
) -> CrossValidation:
    """Fit every candidate with each fold of subjects held out in turn, and compute the likelihood of that fold.

    Parameters
    ----------
    candidates : mapping
        Name → model, or :class:`Candidate` with an estimator, penalty or start of its own.
    pop : Population
        All subjects.
    estimator : estimator, or a sequence of them
        Estimator of all candidates without one of their own.
    folds : int
        Number of parts that the subjects are split into, at random.
    method : Laplace, FOCE, AGQ or ImportanceSampling, optional
        Method for the held-out marginal likelihood; by default importance sampling with 1 000 samples per subject.
    executor : concurrent.futures.Executor, optional
        Runs the fits: threads share compiled functions; processes (spawned, not forked) and clusters are sent the
        program, the data and the options.
    seed : int
        Seed of the split and of the importance samples.

    Returns
    -------
    CrossValidation
        Print it, or take its ``table`` and ``best``.

    Raises
    ------
    ValueError
        There are no candidates, fewer than two folds, or more folds than subjects.

    Notes
    -----
    Marginal likelihoods are compared, not predictions at EBEs, because EBEs are estimated from the very observations
    by which the predictions would be judged.

    Examples
    --------
    >>> found = hx.cross_validate({'decay': model}, pop, hx.FOCE(), folds=2)
    >>> found.subjects.shape
    (10, 1)
    """
    rows = np.flatnonzero(np.asarray(pop.subject_mask))
    if not candidates:
        raise ValueError("cross_validate got no candidates. Give {'name': model, ...}.")
    if not 2 <= folds <= len(rows):
        raise ValueError(f"cross_validate(folds={folds}) cannot split {len(rows)} subjects. Give 2 to {len(rows)}.")
    known = {name: one if isinstance(one, Candidate) else Candidate(one) for name, one in candidates.items()}
    method = ImportanceSampling(1000) if method is None else method
    place = np.random.default_rng(seed).permutation(np.arange(len(rows)) % folds)
    splits = [_split(pop, rows, place == fold, folds) for fold in range(folds)]
    jobs = [(name, fold) for name in known for fold in range(folds)]

    run = _Fold(known, splits, estimator, method, seed)
    subjects = pd.DataFrame(np.nan, index=pd.Index(pop.subject_ids, name="subject"), columns=list(known))
    results = pd.DataFrame("", index=pd.RangeIndex(folds, name="fold"), columns=list(known))
    for name, fold, found, result in run_all(run, jobs, executor):
        subjects.iloc[np.flatnonzero(place == fold), list(known).index(name)] = found
        results.loc[fold, name] = result
    return CrossValidation(subjects, pd.Series(place, index=subjects.index, name="fold"), results, method.label)


@dataclasses.dataclass(frozen=True, eq=False)
class _Fold:
    """A function that fits a candidate to all folds but one, as an object that can be sent to another process."""

    known: dict[str, Candidate]
    splits: list[tuple[Population, Population]]
    estimator: Any
    method: Any
    seed: int

    def __call__(self, job: tuple[str, int]) -> tuple[str, int, np.ndarray, str]:
        name, fold = job
        found, result = _held_out(self.known[name], *self.splits[fold], self.estimator, self.method, self.seed)
        return name, fold, found, result


def _split(pop: Population, rows: np.ndarray, out: np.ndarray, folds: int) -> tuple[Population, Population]:
    """Return the subjects that stay and those that are held out, padded to sizes that all folds share."""
    least, most = len(rows) // folds, -(-len(rows) // folds)
    return pop[rows[~out]].pad(len(rows) - least), pop[rows[out]].pad(most)


def _held_out(
    candidate: Candidate, kept: Population, held_out: Population, estimator: Any, method: Any, seed: int
) -> tuple[np.ndarray, str]:
    """Return the held-out subjects' log likelihoods and how the fit ended."""
    chosen = estimator if candidate.estimator is None else candidate.estimator
    steps = list(chosen) if isinstance(chosen, Sequence) else [chosen]
    options = {"progress": False, **candidate.options}
    # Warnings are not needed here: the table says how each fit ended, and a useless fit has a low held-out likelihood.
    with quietly():
        fit = fit_once(candidate.model, kept, steps[0], **options)
        for step in steps[1:]:
            fit = fit_once(candidate.model, kept, step, **{**options, "init": fit})
        if not np.isfinite(fit.flat).all():
            return np.full(int(np.sum(np.asarray(held_out.subject_mask))), np.nan), fit.result.name
        found = log_likelihood(fit, method, pop=held_out, seed=seed)
    return found.subjects["log_likelihood"].to_numpy(), fit.result.name
