"""``hx.bootstrap``: the sampling distribution of estimates, by fitting again to resampled or simulated data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.special
from tqdm.auto import tqdm

from hierax.analyse.executors import run_all
from hierax.analyse.simulate import simulate
from hierax.arguments import path_of, whole
from hierax.data.censoring import limits_of, with_drawn
from hierax.data.population import Population
from hierax.errors import quietly, tell
from hierax.estimate import fit as fit_again
from hierax.infer.result import Result
from hierax.infer.run.checkpoint import Checkpoint
from hierax.infer.run.owner import option_parts, owner
from hierax.program.identity import digest
from hierax.program.trace import Model
from hierax.results.files.storage import SavedMethod
from hierax.results.fit import Fit
from hierax.results.fixed import need_fit
from hierax.results.uncertainty.covariance import active_entries, subject_scores

Kind = Literal["cases", "parametric"]


@dataclasses.dataclass(frozen=True, eq=False)
class Bootstrap:
    """Estimates of the replicates.

    Attributes
    ----------
    estimates : pandas.DataFrame
        One row per replicate that converged, on the natural scale.
    failed : pandas.Series
        Replicate → how its fit ended, for replicates that did not converge and are not among the estimates.
    original : pandas.Series
        The estimates of the fit.
    acceleration : pandas.Series
        How fast the SE of each estimate changes with its value, from the subjects' influences on it; 0 where this is
        not known. BCa intervals need it.

    Examples
    --------
    >>> found = hx.bootstrap(fit, n=20, seed=1)
    >>> sorted(found.estimates)
    ['omega', 'rate', 'sigma']
    """

    estimates: pd.DataFrame
    failed: pd.Series
    original: pd.Series
    acceleration: pd.Series

    @property
    def se(self) -> pd.Series:
        """SD over the replicates."""
        return self.estimates.std(ddof=1).rename("SE")

    def interval(self, level: float = 0.95, kind: Literal["bca", "percentile"] = "bca") -> pd.DataFrame:
        """Return intervals, one row per parameter.

        ``"bca"`` is corrected for bias and acceleration (Efron 1987). The SDs of random effects need this correction:
        their estimates are biased low, those of the replicates are biased low once more, and percentile intervals
        contain the true value too rarely.
        """
        if kind not in ("bca", "percentile"):
            raise ValueError(f"interval(kind={kind!r}) is not known. Use 'bca' or 'percentile'.")
        tail = (1 - level) / 2
        ends = {}
        for name, values in self.estimates.items():
            shares = [tail, 1 - tail] if kind == "percentile" else self._shares(str(name), np.array([tail, 1 - tail]))
            ends[name] = np.quantile(values, shares)
        columns = [f"{100 * tail:g} %", f"{100 * (1 - tail):g} %"]
        return pd.DataFrame.from_dict(ends, orient="index", columns=columns)

    def _shares(self, name: str, tails: np.ndarray) -> np.ndarray:
        """Return the probabilities whose quantiles over the replicates are the ends of a BCa interval."""
        values, estimate = self.estimates[name], self.original[name]
        below = (np.sum(values < estimate) + 0.5 * np.sum(values == estimate)) / len(values)
        # Where all replicates lie on one side of the estimate, the bias correction would otherwise be infinite.
        half = 0.5 / len(values)
        bias = scipy.special.ndtri(np.clip(below, half, 1 - half))
        z = bias + scipy.special.ndtri(tails)
        return scipy.special.ndtr(bias + z / (1 - self.acceleration[name] * z))

    def summary(self, level: float = 0.95) -> pd.DataFrame:
        """Return estimate, bias, SE and BCa interval."""
        table = pd.DataFrame({"estimate": self.original, "bias": self.estimates.mean() - self.original, "SE": self.se})
        return table.join(self.interval(level))


def bootstrap(
    fit: Fit,
    n: int = 200,
    *,
    kind: Kind = "cases",
    strata: str | None = None,
    executor: Executor | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> Bootstrap:
    """Fit again to ``n`` resampled data sets.

    Parameters
    ----------
    fit : Fit
        The fit; every replicate starts at its estimates, with the same estimator.
    n : int
        Number of replicates.
    kind : {"cases", "parametric"}
        ``"cases"`` draws subjects with replacement. ``"parametric"`` simulates data from the fit at the same design,
        and censors them at the limits at which the fit's data were censored.
    strata : str, optional
        A covariate that is constant in each subject and has few values: subjects are drawn within each of its values.
    executor : concurrent.futures.Executor, optional
        Runs the replicates: threads share compiled functions; processes (spawned, not forked) and clusters (Dask's
        client) are sent the program, the data and the options. Without an executor, the replicates run in this thread,
        one after the other.
    seed : int
        Seed of the replicates; replicate k depends on the seed and k alone.
    checkpoint : path, optional
        File of the finished replicates, from which an interrupted run continues.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Bootstrap
        Its ``failed`` lists the replicates that did not converge, which are not among the estimates.

    Examples
    --------
    >>> hx.bootstrap(fit, n=20, seed=1).interval(0.9, kind='percentile').shape
    (3, 2)
    """
    need_fit(fit, "bootstrap")
    whole("seed", seed, 0)
    if kind not in ("cases", "parametric"):
        raise ValueError(f"bootstrap(kind={kind!r}) is not known. Use 'cases' or 'parametric'.")
    if whole("n", n, 0) < 2:
        raise ValueError(
            f"bootstrap(n={n}) must be 2 or more, because SEs and intervals come from the spread of the replicates. "
            f"Use 200 or more for SEs, 1 000 for intervals."
        )
    groups = _groups(fit.pop, strata)
    draw = _resample(fit, groups, seed) if kind == "cases" else _simulated(fit, n, seed)
    names = [name for name, free in zip(fit.layout.names(), fit.free, strict=True) if free]
    file = Checkpoint(path_of("checkpoint", checkpoint), 10.0)
    if file.path is not None:
        told = {"kind": kind, "strata": str(strata), "seed": str(seed), "n": str(n)}
        file.owner = {
            **owner(fit.program, fit.pop, fit.session.priors),
            **option_parts(refitted_by(fit), "estimator"),
            "estimates": digest({"estimates": str(fit.flat.tolist())}),
            **told,
        }
    with file.held():
        codes, table = _all_replicates(fit, draw, n, len(names), file, executor, progress)
    return _bundle(fit, names, codes, table)


def _all_replicates(
    fit: Fit, draw: Callable[[int], Population], n: int, width: int, file: Checkpoint, executor: Any, progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the result code and the estimates of each replicate; those in a checkpoint are not fitted again."""
    table = np.full((n, width), np.nan)
    codes = np.full(n, -1)
    saved = file.load({"codes": codes, "table": table})
    if saved is not None:
        codes, table = np.array(saved["codes"]), np.array(saved["table"])
    todo = [k for k in range(n) if codes[k] < 0]
    one = _replicate(fit, draw)
    with file.watching():
        try:
            for k, code, values in _bar(run_all(one, todo, executor), len(todo), progress):
                codes[k], table[k] = code, values
                file.offer(lambda: {"codes": codes, "table": table})
        finally:
            file.save({"codes": codes, "table": table})
    return codes, table


def _bar(results: Iterable[Any], count: int, progress: bool) -> Iterable[Any]:
    return tqdm(results, total=count, desc="bootstrap", disable=not progress)


def _groups(pop: Population, strata: str | None) -> list[np.ndarray]:
    """Return the groups of subjects, as rows, within which subjects are resampled."""
    rows = np.flatnonzero(np.asarray(pop.subject_mask))
    if strata is None:
        return [rows]
    if strata not in pop.covariates or np.shape(pop.covariates[strata])[1:] != (1,):
        raise ValueError(
            f"strata={strata!r} must name a covariate that is constant within each subject. The population has the "
            f"covariates {list(pop.covariates)}."
        )
    values = np.asarray(pop.covariates[strata])[rows, 0]
    groups = [rows[values == value] for value in np.unique(values)]
    if len(groups) > len(rows) // 2:
        raise ValueError(
            f"strata={strata!r} has {len(groups)} values for {len(rows)} subjects, so that hardly any subject could be "
            f"drawn in place of another. Use a covariate of few values, or bin it."
        )
    return groups


@dataclasses.dataclass(frozen=True, eq=False)
class _Resampled:
    """Draws the subjects of a replicate."""

    pop: Population
    groups: list[np.ndarray]
    seed: int

    def __call__(self, k: int) -> Population:
        rng = np.random.default_rng([self.seed, k])
        rows = np.concatenate([rng.choice(group, len(group)) for group in self.groups])
        picked = self.pop[rows]
        # A replicate has as many subjects as the original population, but selecting them may have changed the padding.
        # Padding it to the original's shape lets the compiled functions be used again.
        events = picked.events.structured_as(self.pop.events)
        picked = dataclasses.replace(picked, events=events).pad(self.pop.n_subjects)
        return dataclasses.replace(picked, ids=tuple(range(1, len(rows) + 1)), grids={})


@dataclasses.dataclass(frozen=True, eq=False)
class _Simulated:
    """Returns the data of a replicate, which were simulated beforehand for all replicates at once."""

    pop: Population
    drawn: dict[str, np.ndarray]
    limits: dict[str, Any]

    def __call__(self, k: int) -> Population:
        rows, values = np.flatnonzero(np.asarray(self.pop.subject_mask)), {}
        for name, drawn in self.drawn.items():
            whole = np.full(np.shape(self.pop.times), np.nan)
            whole[rows, : drawn.shape[2]] = drawn[k]
            values[name] = np.where(np.asarray(self.pop.mask[name]), whole, np.nan)
        return dataclasses.replace(with_drawn(self.pop, values, self.limits), grids={})


def _resample(fit: Fit, groups: list[np.ndarray], seed: int) -> _Resampled:
    return _Resampled(fit.pop, groups, seed)


def _simulated(fit: Fit, n: int, seed: int) -> _Simulated:
    # A parametric bootstrap simulates from the estimate, even where the fit has draws of a posterior.
    drawn = simulate(fit, n=n, seed=seed, parameters="estimate")
    there = [name for name in fit.pop.dv if np.asarray(fit.pop.mask[name]).any()]
    names = [name for name in there if name in drawn]
    lacking = [name for name in there if name not in names]
    if lacking:
        raise ValueError(
            f"bootstrap(kind='parametric') cannot simulate {lacking}, because the program has no observed site of the "
            f"name on the record axis (its data sites are {list(fit.program.sites.data)}): the replicates would keep "
            f"the data of the fit. Write hx.observe('{lacking[0]}', distribution, pop), or use kind='cases'."
        )
    limits = {name: limits_of(fit.pop, name) for name in names}
    for name, found in limits.items():
        if found.assumed:
            tell(
                f"The censored records of '{name}' have {found.assumed}. The simulated replicates are censored at "
                f"these limits."
            )
    return _Simulated(fit.pop, {name: np.asarray(drawn[name].values) for name in names}, limits)


@dataclasses.dataclass(frozen=True, eq=False)
class _Replicate:
    """Fits again to one replicate; holds all that this needs, so that it can be sent to another process."""

    model: Model
    method: Any
    draw: Callable[[int], Population]
    free: np.ndarray
    seed: int
    options: dict[str, Any]

    def __call__(self, k: int) -> tuple[int, int, np.ndarray]:
        # Warnings are not needed here, because the result code says how each replicate ended.
        with quietly():
            found = fit_again(self.model, self.draw(k), self.method, seed=self.seed + k, progress=False, **self.options)
        return k, int(found.result), found.layout.natural(found.flat[None])[0][self.free]


def _replicate(fit: Fit, draw: Callable[[int], Population]) -> _Replicate:
    held = {
        name: ~fit.free[place].reshape(site.shape) if site.kind != "weights" else True
        for name, place in fit.layout.slices.items()
        if not fit.free[place].all()
        for site in [fit.program.sites.population[name]]
    }
    given = {name: fit.session.priors[name] for name in fit.given_priors if name in fit.session.priors}
    options = {
        "init": fit.params,
        "fixed": held or None,
        "priors": given or None,
        "use_priors": fit.use_priors,
        "plate": fit.program.plate,
    }
    return _Replicate(fit.program.model, refitted_by(fit), draw, fit.free, fit.seed, options)


def refitted_by(fit: Fit) -> Any:
    """Return the estimator, with its options, that repeats a fit on the data of a replicate.

    Raises
    ------
    ValueError
        The fit was loaded from a file that does not hold all options of its estimator.
    """
    if isinstance(fit.method, SavedMethod):
        raise ValueError(
            f"The options of {fit.method.label} are not all in the file that it was loaded from, so that the "
            f"replicates cannot be fitted. Load the fit with load_fit(estimator=...), with the estimator and the "
            f"options that it was fitted by."
        )
    return fit.estimator


def _bundle(fit: Fit, names: list[str], codes: np.ndarray, table: np.ndarray) -> Bootstrap:
    good = codes == Result.converged
    estimates = pd.DataFrame(table[good], columns=names, index=pd.Index(np.flatnonzero(good), name="replicate"))
    bad = np.flatnonzero(~good)
    failed = pd.Series([Result(int(codes[k])).name for k in bad], index=pd.Index(bad, name="replicate"), dtype=object)
    if len(bad) > 0.1 * len(codes):
        tell(
            f"{len(bad)} of {len(codes)} bootstrap replicates did not converge and are left out "
            f"({failed.value_counts().to_dict()}). The others may then be a biased sample, and so may be the SEs and "
            f"intervals. Find out first why the model does not converge.",
        )
    original = pd.Series(fit.layout.natural(fit.flat[None])[0][fit.free], index=names)
    return Bootstrap(estimates, failed, original, _acceleration(fit, names))


def _acceleration(fit: Fit, names: list[str]) -> pd.Series:
    """Return the acceleration of every estimate: Σ u³ / (6 (Σ u²)^1.5) with the subjects' influences u = H⁻¹ score."""
    out = pd.Series(0.0, index=names)
    covariance = fit.covariance()
    if not covariance.ok:
        return out
    active = active_entries(fit, covariance)
    scores = subject_scores(fit, active)
    # The scores are those of −log L. Away from the optimum of this approximation (after SAEM, for example) they do not
    # add up to zero, and are therefore centred.
    influence = -covariance.unconstrained.to_numpy() @ (scores - scores.mean(1, keepdims=True))
    squares = (influence**2).sum(1)
    found = (influence**3).sum(1) / np.where(squares > 0, 6 * squares**1.5, 1.0)
    out[covariance.unconstrained.index] = found
    return out
