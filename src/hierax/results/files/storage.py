"""Saving and loading fits: one zip of arrays and JSON, no pickles."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hierax.errors import EstimatorError
from hierax.infer.procedure import Procedure
from hierax.infer.run.archive import FIT, try_folder, write_archive
from hierax.infer.run.owner import owner
from hierax.results.files.guide import saved_variational
from hierax.results.files.options import encode

if TYPE_CHECKING:
    from hierax.infer.fitting.job import Job
    from hierax.infer.fitting.outcome import Outcome

if TYPE_CHECKING:
    from hierax.results.fit import Fit

# Version of the file format; only files of this version can be read.
FORMAT = 2
# Fields of a fit that are arrays, stored under the same names.
ARRAYS = ("flat", "eta", "value", "hessian", "codes", "free", "gradient")
# Fields of a fit that are text, numbers, or lists and mappings of these, stored under the same names.
PLAIN = (
    "why",
    "n_observations",
    "n_gaussian",
    "use_priors",
    "given_priors",
    "penalty",
    "timing",
    "held",
    "ignored_priors",
    "seed",
    "solver_error",
)


def save_fit(fit: Fit, path: str | Path) -> None:
    """Write a fit to one file; see :meth:`hierax.Fit.save`."""
    try_folder(Path(path), "path")
    meta = {
        "format": FORMAT,
        "estimator": encode(fit.approximation),
        "method": None if fit.method is None else _described(fit.method),
        "parameters": fit.layout.names(),
        "result": fit.result.name,
        "plate": fit.program.plate,
        "counted": sorted(fit.session.priors),
        "history": fit.history.to_dict(orient="list"),
        "owner": owner(fit.program, fit.pop, fit.session.priors),
        **{name: getattr(fit, name) for name in PLAIN},
    }
    arrays: dict[str, Any] = {name: np.asarray(getattr(fit, name)) for name in ARRAYS}
    if fit.moments is not None:
        arrays["moments_centre"], arrays["moments_covariance"] = fit.moments
    if fit.samples is not None:
        arrays["samples_flat"] = fit.samples.flat
        arrays["samples_independent"] = np.asarray(fit.samples.independent)
        arrays |= {} if fit.samples.eta is None else {"samples_eta": fit.samples.eta}
        arrays |= {f"stats_{name}": value for name, value in fit.samples.stats.items()}
    if fit.held_out is not None:
        arrays["held_out"] = fit.held_out
    if fit.variational is not None:
        arrays |= saved_variational(fit.variational)
    write_archive(Path(path), FIT, meta, arrays, packed=True)


@dataclasses.dataclass(frozen=True)
class SavedMethod(Procedure):
    """The description of a loaded fit's algorithm, where its options could not all be restored."""

    name: str = ""
    description: str = ""
    reference: str = ""
    kind: Any = "hessian"
    options: Any = None

    def run(self, job: Job) -> Outcome:
        """Refuse to run, because the options of the algorithm are not all known."""
        raise EstimatorError(
            f"The {self.name} of a saved fit cannot be run, because its options are not in the file. Pass "
            f"load_fit(estimator=...) with the options of the fit."
        )

    @property
    def label(self) -> str:
        """Name of the algorithm."""
        return self.description

    @property
    def citation(self) -> str:
        """Reference that describes the algorithm."""
        return self.reference

    @property
    def covariance(self) -> Any:  # type: ignore[override]
        """Kind of covariance that a fit by the algorithm has by default."""
        return self.kind


def _described(method: Procedure) -> dict[str, Any]:
    if isinstance(method, SavedMethod):
        return dataclasses.asdict(method)
    return {
        "name": type(method).__name__,
        "description": method.label,
        "reference": method.citation,
        "kind": method.covariance,
        "options": encode(method),
    }
