"""The result of a fit."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from hierax.data.population import Population
from hierax.infer.fitting.outcome import AtParameters, Outcome
from hierax.infer.marginal.estimator import Estimator
from hierax.infer.marginal.session import subject_results
from hierax.infer.procedure import Procedure
from hierax.infer.result import Result
from hierax.program.density import Program
from hierax.program.parameters import Layout
from hierax.results.files.arviz import to_arviz
from hierax.results.files.storage import save_fit
from hierax.results.individual import ebe_dataset, embeddings, record_table
from hierax.results.judge import judge_solver
from hierax.results.solver import with_solver_codes
from hierax.results.tables.summary import summarise
from hierax.results.uncertainty.conditional import conditional_dataset
from hierax.results.uncertainty.covariance import Covariance, compute_covariance
from hierax.results.uncertainty.posterior import trouble

if TYPE_CHECKING:
    from hierax.infer.fitting.job import Job
    from hierax.infer.fitting.samples import Samples
    from hierax.infer.vi.variational import Variational

Kind = Literal["hessian", "sandwich", "score", "louis"]


@dataclasses.dataclass(eq=False)
class Evaluation(AtParameters):
    """The objective at fixed parameters (NONMEM's MAXEVAL=0); also the base of :class:`Fit`.

    Attributes
    ----------
    params : dict
        Population parameters, constrained.
    flat : array, (parameter,)
        The same, unconstrained, in one vector.
    eta : array, (subject, coordinate)
        Modes of the random effects in their working coordinates, padded subjects included.
    value : array, (subject,)
        −log of each subject's marginal likelihood, with all constants.
    hessian : array, (subject, coordinate, coordinate)
        Hessian of −log joint density at the mode.
    codes : array of int, (subject,)
        How the search for each subject's mode ended, see :class:`Result`.
    n_observations : int
        Number of scalar observations that the program uses, censored ones included.
    n_gaussian : int
        Number of Gaussian observations, N in the OFV.
    penalty : float
        −log density of the priors that count; it is not part of the objective.
    ignored_priors : list of str
        Sites whose priors did not count.

    Examples
    --------
    >>> here = hx.evaluate(model, pop, {'rate': 0.5}, hx.FO())
    >>> here.subject_objective.size
    10
    """

    penalty: float = 0.0
    ignored_priors: list[str] = dataclasses.field(default_factory=list)

    @property
    def ids(self) -> list[Any]:
        """Ids of the real subjects; row numbers where the population has no ids."""
        return self.pop.subject_ids

    @property
    def program(self) -> Program:
        """The parsed program."""
        return self.session.program

    @property
    def pop(self) -> Population:
        """The population."""
        return self.session.pop

    @property
    def approximation(self) -> Estimator:
        """The approximation of the marginal likelihood, by which objective and EBEs are computed."""
        return self.session.estimator

    @property
    def estimator(self) -> Estimator | Procedure:
        """The estimator that was passed."""
        return self.session.estimator

    @property
    def layout(self) -> Layout:
        """Layout of the flat vector."""
        return self.session.layout

    @property
    def objective_label(self) -> str:
        """Description of the objective: approximation, constant, and coordinates of random effects if not their own."""
        kinds = {site.label for site in self.program.sites.effects.values()} - {"identity"}
        where = f", random effects in {', '.join(sorted(kinds))} coordinates" if kinds else ""
        method = getattr(self, "method", None)
        if method is not None and np.isnan(self.value[self.rows]).any():
            return f"{method.label}{where}; no marginal likelihood (see hx.log_likelihood)"
        by = f"{method.label}; objective by " if method is not None else ""
        return f"{by}{self.approximation.label}{where}; OFV = -2 log L - {self.n_gaussian}·log(2π)"

    @functools.cached_property
    def subject_results(self) -> pd.Series:
        """How the search for each real subject's mode ended, by id."""
        results = subject_results(with_solver_codes(self)[self.rows])
        return pd.Series([result.name for result in results], index=pd.Index(self.ids, name="subject"))

    @functools.cached_property
    def ebe(self) -> xr.Dataset:
        """Empirical Bayes estimates: modes ``eta`` and their SDs, and the individual parameters there.

        Dims: ``subject`` (real ids), ``eta`` (coordinate names). The SD is that of the Gaussian with the joint
        density's curvature.
        """
        return ebe_dataset(self)

    def judge_solver(self, judge: Any = None) -> pd.DataFrame:
        """Return the relative error of every subject's ODE solutions at its mode, judged by another solver.

        Parameters
        ----------
        judge : Adaptive, optional
            The other solver; by default Kvaerno5 at rtol 1e-10, which is implicit and adaptive, so that it shares
            neither steps nor method with a grid.

        Returns
        -------
        pandas.DataFrame
            Subjects × ODEs: the largest error over states and records, relative to |state| + 1e-3 of its peak. NaN
            where either solver failed.
        """
        return judge_solver(self, judge)

    @property
    def subject_objective(self) -> pd.Series:
        """−2 log L of each real subject, by id, with all constants."""
        return pd.Series(2 * self.value[self.rows], index=pd.Index(self.ids, name="subject"), name="-2 log L")

    def table(self) -> pd.DataFrame:
        """Return one row per record: ID, TIME, endpoint, DV, PRED, IPRED, IRES, IWRES, etas, individual parameters.

        PRED and IPRED are the mean of the observation's distribution at the reference point and at the mode
        (log-normal: exp(loc), with residuals on the log scale); IWRES divides by its SD.
        """
        return record_table(self)


@dataclasses.dataclass(eq=False)
class Fit(Evaluation):
    """A fitted model.

    Attributes
    ----------
    free : array of bool, (parameter,)
        Which entries of the flat vector were estimated.
    gradient : array, (parameter,)
        Gradient of −log L plus penalty at the estimate, with respect to the unconstrained parameters.
    result : Result
        How the search ended; ``why`` says so in words.
    history : pandas.DataFrame
        One row per evaluation: start, iteration, ofv, standardised gradient, step length, seconds.
    timing : dict
        Seconds of compilation and search, and the number of evaluations.
    held : list of str
        Parameters on which the objective does not depend; they are held at their start values.
    solver_error : dict or None
        By ODE: the largest relative error of its solution over subjects, states and records, at the modes and two
        posterior SDs around them.
    use_priors, given_priors
        The option ``use_priors=`` of the fit, and the sites for which ``priors=`` gave a prior.
    method : Procedure or None
        The algorithm, such as SAEM; None where the fit maximised the marginal likelihood by ``approximation``.
    moments : pair of arrays, (subject, coordinate[, coordinate]), or None
        Mean and covariance of each subject's random effects given its data, as estimated by the algorithm's chains.
    samples : Samples or None
        Draws of the posterior, where the algorithm draws from one; ``params`` is then its mean in unconstrained space,
        mapped back.
    variational : Variational or None
        The guide and its bound, after VI.
    held_out : array, (look,), or None
        Log likelihood of the held-out subjects at every look, where the fit was to stop early by this likelihood.

    Examples
    --------
    >>> fit.result
    <Result.converged: 0>
    >>> sorted(fit.params)
    ['omega', 'rate', 'sigma']
    """

    free: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, bool))
    gradient: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    result: Result = Result.converged
    why: str = ""
    history: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)
    timing: dict[str, float] = dataclasses.field(default_factory=dict)
    held: list[str] = dataclasses.field(default_factory=list)
    seed: int = 0
    solver_error: dict[str, float] | None = None
    use_priors: Any = "auto"
    given_priors: list[str] = dataclasses.field(default_factory=list)
    method: Procedure | None = None
    moments: tuple[np.ndarray, np.ndarray] | None = None
    samples: Samples | None = None
    variational: Variational | None = None
    held_out: np.ndarray | None = None

    @classmethod
    def from_outcome(cls, outcome: Outcome, job: Job, method: Estimator | Procedure) -> Fit:
        """Return the fit that an estimator's outcome describes.

        ``outcome`` is what the estimator returned, ``job`` what it was asked, and ``method`` the estimator itself.
        Markov chains are judged here, because the elements of parameters have names here: where the chains have not
        mixed, the fit's ``result`` and ``why`` say so.
        """
        found = {field.name: getattr(outcome, field.name) for field in dataclasses.fields(outcome)}
        free, gradient, extras = found.pop("free"), found.pop("gradient"), found.pop("extras")
        fit = cls(
            **found,
            **extras,
            **job.record(),
            free=job.free if free is None else free,
            gradient=np.full(outcome.flat.size, np.nan) if gradient is None else gradient,
            method=method if isinstance(method, Procedure) else None,
        )
        unmixed = trouble(fit) if fit.result is Result.converged else ""
        if unmixed:
            fit.result, fit.why = Result.not_mixed, unmixed
        return fit

    def __post_init__(self) -> None:
        self._covariances: dict[str, Covariance] = {}
        self._conditional: dict[int, xr.Dataset] = {}

    @property
    def estimator(self) -> Estimator | Procedure:
        """The estimator that was passed to :func:`hierax.fit`."""
        return self.session.estimator if self.method is None else self.method

    def conditional(self, draws: int = 400) -> xr.Dataset:
        """Return draws of every subject's random effects given its data, at the estimate, by Markov chains.

        Parameters
        ----------
        draws : int
            Number of draws per subject, from 4 to 16 chains together, of which every fifth state is kept.

        Returns
        -------
        xarray.Dataset
            ``eta`` in working coordinates, dims ``chain``, ``draw``, ``subject`` (real ids), ``eta_name``. The
            same fit gives the same draws.
        """
        if draws not in self._conditional:
            self._conditional[draws] = conditional_dataset(self, draws)
        return self._conditional[draws]

    def embeddings(self, pop: Population | None = None) -> xr.DataArray:
        """Return each subject's place in the space of the random effects, for which the model serves as an encoder.

        These are conditional means after SAEM and VI, and EBEs otherwise. For another population they are the means of
        an amortised guide where the fit has one, else EBEs at the estimate. :func:`hierax.predict` with
        ``random_effects=`` is the decoder.

        Parameters
        ----------
        pop : Population, optional
            By default the one of the fit.

        Returns
        -------
        xarray.DataArray
            (subject, eta_name), in working coordinates.
        """
        return embeddings(self, pop)

    @property
    def starts(self) -> pd.DataFrame:
        """Where each start ended: evaluations, lowest OFV, standardised gradient there, and which optimum it is.

        Starts within 0.01 of each other's OFV count as one optimum; 1 is the lowest. The lowest of several optima is
        not always the right one: compare the estimates with what is known about the parameters.
        """
        rows = self.history.dropna(subset=["ofv"])
        best = rows.loc[rows.groupby("start")["ofv"].idxmin()].set_index("start")
        out = pd.DataFrame({"evaluations": self.history.groupby("start").size()})
        out = out.assign(ofv=best["ofv"], gradient=best["gradient"])
        order = out["ofv"].sort_values()
        optimum = (order.diff().fillna(0.0) > 0.01).cumsum() + 1
        return out.assign(optimum=optimum)

    @property
    def n_parameters(self) -> int:
        """Number of estimated parameters."""
        return int(self.free.sum())

    @property
    def aic(self) -> float:
        """−2 log L + 2 p, with all constants."""
        return -2 * self.log_likelihood + 2 * self.n_parameters

    def bic(self, n: Literal["subjects", "observations"] = "subjects") -> float:
        """Return −2 log L + p·log N, N the number of subjects or of observations.

        Tools differ in N; say which one when comparing.
        """
        counts = {"subjects": len(self.rows), "observations": self.n_observations}
        if n not in counts:
            raise ValueError(f"bic(n={n!r}) is not known. Use one of {list(counts)}.")
        return -2 * self.log_likelihood + self.n_parameters * float(np.log(counts[n]))

    @property
    def usual_covariance(self) -> Kind:
        """The kind of covariance that is used by default."""
        return "hessian" if self.method is None else self.method.covariance

    def covariance(self, kind: Kind | None = None) -> Covariance:
        """Return the covariance of the estimates.

        Parameters
        ----------
        kind : {"hessian", "sandwich", "score", "louis"}, optional
            "hessian" is R⁻¹, the inverse Hessian of −log L by the objective's approximation; "score" is S⁻¹, where S is
            the sum of the outer products of the subjects' scores; "sandwich" is R⁻¹SR⁻¹; and "louis" is the inverse
            information of the exact likelihood, by Louis' formula over draws of the random effects. The default is
            "hessian", and "louis" after SAEM.

        Returns
        -------
        Covariance
            Covariance of the free population parameters except network weights, on which it is conditional.
        """
        kind = self.usual_covariance if kind is None else kind
        if kind not in self._covariances:
            self._covariances[kind] = compute_covariance(self, kind)
        return self._covariances[kind]

    def summary(self, kind: Kind | None = None) -> pd.DataFrame:
        """Return estimates with SE, RSE and 95 % intervals; printing it shows the whole result.

        Intervals are Wald intervals in unconstrained space, mapped back; SEs are on the natural scale, by the
        delta method.
        """
        return summarise(self, self.usual_covariance if kind is None else kind)

    def to_arviz(self, draws: int = 500, seed: int = 0) -> Any:
        """Return ArviZ data: draws of the posterior or of the estimates' asymptotic distribution, log likelihoods."""
        return to_arviz(self, draws, seed)

    def save(self, path: str | Path) -> None:
        """Save to one file, without pickles; :func:`hierax.load_fit` reads it."""
        save_fit(self, path)

    def __repr__(self) -> str:
        shown = f"; OFV {self.ofv:.4f}" if self.method is None or np.isfinite(self.ofv) else ""
        return f"Fit({self.objective_label}; {self.result.name}{shown})"
