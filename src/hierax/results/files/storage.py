"""Saving and loading fits: one zip of arrays and JSON, no pickles."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hierax.data.population import Population
from hierax.errors import EstimatorError, tell
from hierax.infer.fitting.samples import Samples
from hierax.infer.marginal.estimator import Estimator
from hierax.infer.marginal.session import Session
from hierax.infer.procedure import Procedure
from hierax.infer.result import Result
from hierax.infer.run.archive import FIT, read_archive, try_folder, write_archive
from hierax.infer.run.owner import VERSIONS, both_digests, differences, owner, population_part
from hierax.program.density import Program
from hierax.program.parameters import Layout, layout
from hierax.program.priors import collect_priors
from hierax.program.read import read_program
from hierax.program.trace import Model
from hierax.results.files.guide import load_variational, saved_variational
from hierax.results.files.options import decode, encode, unsaved

if TYPE_CHECKING:
    from hierax.infer.fitting.job import Job
    from hierax.infer.fitting.outcome import Outcome

if TYPE_CHECKING:
    from hierax.results.fit import Fit

FORMAT = 2
ARRAYS = ("flat", "eta", "value", "hessian", "codes", "free", "gradient")
# What of a fit is text and numbers, under the same name.
_PLAIN = (
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
        "estimator": encode(fit.estimator),
        "method": None if fit.method is None else _described(fit.method),
        "parameters": fit.layout.names(),
        "result": fit.result.name,
        "plate": fit.program.plate,
        "counted": sorted(fit.session.priors),
        "history": fit.history.to_dict(orient="list"),
        "owner": owner(fit.program, fit.pop, fit.session.priors),
        **{name: getattr(fit, name) for name in _PLAIN},
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


def load_fit(
    path: str | Path,
    model: Model,
    pop: Population,
    *,
    priors: Mapping[str, Any] | None = None,
    estimator: Estimator | Procedure | None = None,
) -> Fit:
    """Read a fit that :meth:`hierax.Fit.save` wrote.

    Parameters
    ----------
    path : path
        The file.
    model, pop
        The program and the data it was fitted to; they are not in the file.
    priors : mapping, optional
        The priors that were given to the fit, if there were any; they are not in the file either.
    estimator : estimator, optional
        The estimator of the fit, where its options hold functions (an optimiser of optax), which are not in the file,
        and the loaded fit is to fit again (``bootstrap``).

    Returns
    -------
    Fit
        With all that it could do when it was saved.

    Raises
    ------
    ValueError
        Program, data or priors are not those of the fit: the message says item by item what differs. Or the file is
        damaged, or no saved fit.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / 'decay.fit'
    >>> fit.save(path)
    >>> hx.load_fit(path, model, pop).ofv == fit.ofv
    True
    """
    from hierax.results.fit import Fit

    path = Path(path)
    meta, arrays = read_archive(path, FIT)
    if meta.get("format") != FORMAT:
        raise ValueError(f"{path} has format {meta.get('format')}, and this version reads {FORMAT}. Refit, or upgrade.")
    program = read_program(model, pop, meta["plate"])
    places = layout(program)
    counted = _the_same(path, meta, program, places, pop, priors)
    if estimator is not None and encode(estimator)["class"] != (_method_spec(meta) or meta["estimator"])["class"]:
        raise ValueError(
            f"The fit in {path} is by {(_method_spec(meta) or meta['estimator'])['class']}, and estimator= is "
            f"{type(estimator).__name__}. Pass the estimator of the fit, or leave it out."
        )
    objective = estimator if isinstance(estimator, Estimator) else _estimator(path, meta["estimator"])
    session = Session(program, objective, pop, places, counted)
    method = estimator if isinstance(estimator, Procedure) else _method(meta["method"])
    values: dict[str, Any] = {name: arrays[name] for name in ARRAYS}
    plain: dict[str, Any] = {name: meta.get(name) for name in _PLAIN}
    return Fit(
        session=session,
        params=places.params(values["flat"]),
        result=Result[meta["result"]],
        history=pd.DataFrame(meta["history"]).reset_index(drop=True),
        method=method,
        moments=(arrays["moments_centre"], arrays["moments_covariance"]) if "moments_centre" in arrays else None,
        samples=_samples(arrays),
        held_out=arrays.get("held_out"),
        variational=load_variational(arrays, method, session, values["free"], path),
        **values,
        **plain,
    )


def _the_same(
    path: Path, meta: dict[str, Any], program: Program, places: Layout, pop: Population, priors: Any
) -> dict[str, Any]:
    """Return the priors that count, once program, data and priors are found to be those of a saved fit."""
    missing = sorted(set(meta["given_priors"]) - set(priors or {}))
    if missing:
        raise ValueError(
            f"The fit in {path} was given priors for {missing}, which are not in the file. Pass the same with priors=."
        )
    if places.names() != meta["parameters"]:
        raise ValueError(
            f"The program's parameters are {places.names()}, but the fit in {path} has {meta['parameters']}. "
            f"Pass the model that was fitted."
        )
    everything = collect_priors(program, priors)
    counted = {name: everything[name] for name in meta["counted"] if name in everything}
    now, saved = owner(program, pop, counted), meta["owner"]
    if now[VERSIONS] != saved.get(VERSIONS):
        tell(
            f"The fit in {path} was saved by {saved.get(VERSIONS)}, and this is {now[VERSIONS]}, so that the programs' "
            f"operations cannot be compared. Make sure that the model is the one that was fitted.",
        )
        saved = {**saved, VERSIONS: now[VERSIONS], "program": now["program"]}
    found = differences(saved, now)
    if found:
        data = differences(*(population_part(side) for side in (saved, now)))
        what = "its data differ" if data else "the program or its priors differ"
        raise ValueError(
            f"The fit in {path} is of another {'population' if data else 'model'} ({what}: {'; '.join(found)}; "
            f"{both_digests(saved, now)}). Pass what was fitted."
        )
    return counted


@dataclasses.dataclass(frozen=True)
class SavedMethod(Procedure):
    """What a saved fit knows of the algorithm that made it."""

    name: str = ""
    description: str = ""
    reference: str = ""
    kind: Any = "hessian"
    options: Any = None

    def run(self, job: Job) -> Outcome:
        """Refuse: the options of the algorithm are not all known."""
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
        """Where it is described."""
        return self.reference

    @property
    def covariance(self) -> Any:  # type: ignore[override]
        """What kind of covariance belongs to it."""
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


def _method_spec(meta: Mapping[str, Any]) -> dict[str, Any] | None:
    return None if meta["method"] is None else meta["method"]["options"]


def _method(saved: dict[str, Any] | None) -> Procedure | None:
    """Return the algorithm of a saved fit with its options; where they are not all there, what is known of it."""
    if saved is None:
        return None
    if not unsaved(saved["options"]):
        try:
            return decode(saved["options"])
        except (LookupError, TypeError, ValueError):
            # A class that is not known here, or has other options by now.
            pass
    return SavedMethod(**saved)


def _samples(arrays: Mapping[str, np.ndarray]) -> Any:
    if "samples_flat" not in arrays:
        return None
    stats = {name.removeprefix("stats_"): value for name, value in arrays.items() if name.startswith("stats_")}
    independent = bool(arrays.get("samples_independent", False))
    return Samples(arrays["samples_flat"], arrays.get("samples_eta"), stats, independent)


def _estimator(path: Path, spec: dict[str, Any]) -> Estimator:
    """Return the approximation of a saved fit."""
    try:
        return decode(spec)
    except LookupError:
        raise ValueError(
            f"The fit in {path} is by {spec['class']}, which is not known here. Import the module that defines it, or "
            f"pass estimator=."
        ) from None
