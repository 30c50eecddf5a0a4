"""Saving and loading fits: one zip of arrays and JSON, no pickles."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pandas as pd

from hierax.data.population import Population
from hierax.infer.checkpoint import describe
from hierax.infer.estimator import Estimator
from hierax.infer.first_order import FO, NaivePooled
from hierax.infer.laplace import FOCE, Laplace
from hierax.infer.modes import Newton
from hierax.infer.nuts import Joint
from hierax.infer.optimise import QuasiNewton
from hierax.infer.procedure import Procedure
from hierax.infer.quadrature import AGQ
from hierax.infer.result import Result
from hierax.infer.session import Session
from hierax.program.parameters import layout
from hierax.program.priors import collect_priors, counting
from hierax.program.read import read_program
from hierax.program.trace import Model

if TYPE_CHECKING:
    from hierax.results.fit import Fit

FORMAT = 1
ARRAYS = ("flat", "eta", "value", "hessian", "codes", "free", "gradient")
_ESTIMATORS = {kind.__name__: kind for kind in (FO, FOCE, Laplace, AGQ, NaivePooled, Joint)}
_PACKAGES = ("hierax", "jax", "numpyro", "optimistix", "numpy")


def save_fit(fit: Fit, path: str | Path) -> None:
    """Write a fit to one file; see :meth:`hierax.Fit.save`."""
    meta = {
        "format": FORMAT,
        "estimator": {"name": type(fit.estimator).__name__, **dataclasses.asdict(fit.estimator)},  # type: ignore[call-overload]
        "method": None if fit.method is None else _described(fit.method),
        "parameters": fit.layout.names(),
        "result": fit.result.name,
        "why": fit.why,
        "n_observations": fit.n_observations,
        "n_gaussian": fit.n_gaussian,
        "use_priors": fit.use_priors,
        "given_priors": fit.given_priors,
        "penalty": fit.penalty,
        "timing": fit.timing,
        "held": fit.held,
        "ignored_priors": fit.ignored_priors,
        "seed": fit.seed,
        "solver_error": fit.solver_error,
        "plate": fit.program.plate,
        "history": fit.history.to_dict(orient="list"),
        "data": data_hash(fit.pop),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(getattr(fit, name)) for name in ARRAYS}
    if fit.moments is not None:
        arrays["moments_centre"], arrays["moments_covariance"] = fit.moments
    if fit.samples is not None:
        arrays["samples_flat"] = fit.samples.flat
        arrays |= {} if fit.samples.eta is None else {"samples_eta": fit.samples.eta}
        arrays |= {f"stats_{name}": value for name, value in fit.samples.stats.items()}
    if fit.held_out is not None:
        arrays["held_out"] = fit.held_out
    np.savez(buffer, **arrays)
    path = Path(path)
    part = path.with_name(path.name + ".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("fit.json", json.dumps(meta, indent=1))
        file.writestr("arrays.npz", buffer.getvalue())
    part.replace(path)


def load_fit(path: str | Path, model: Model, pop: Population, *, priors: Mapping[str, Any] | None = None) -> Fit:
    """Read a fit that :meth:`hierax.Fit.save` wrote.

    Parameters
    ----------
    path : path
        The file.
    model, pop
        The program and the data it was fitted to; they are not in the file.
    priors : mapping, optional
        The priors that were given to the fit, if there were any; they are not in the file either.

    Raises
    ------
    ValueError
        The program has other parameters, or the population other data, than the fit had.
    """
    from hierax.results.fit import Fit

    with zipfile.ZipFile(path) as file:
        meta = json.loads(file.read("fit.json"))
        if meta["format"] != FORMAT:
            raise ValueError(f"{path} has format {meta['format']}, and this version reads {FORMAT}. Refit, or upgrade.")
        with np.load(io.BytesIO(file.read("arrays.npz")), allow_pickle=False) as arrays:
            values = {name: arrays[name] for name in ARRAYS}
            more = {name: arrays[name] for name in arrays.files if name not in ARRAYS}
    if sorted(priors or {}) != meta["given_priors"]:
        raise ValueError(
            f"The fit in {path} was given priors for {meta['given_priors']}, and load_fit for {sorted(priors or {})}. "
            f"Pass the same with priors=, for its covariance depends on them."
        )
    if meta["data"] != data_hash(pop):
        raise ValueError(f"The population is not the one that {path} was fitted to (its data differ). Pass that one.")
    program = read_program(model, pop, meta["plate"])
    places = layout(program)
    if places.names() != meta["parameters"]:
        raise ValueError(
            f"The program's parameters are {places.names()}, but the fit in {path} has {meta['parameters']}. "
            f"Pass the model that was fitted."
        )
    session = Session(
        program,
        _estimator(meta["estimator"]),
        pop,
        places,
        counting(program, collect_priors(program, priors), meta["use_priors"]),
    )
    kept = (
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
    history = pd.DataFrame(meta["history"]).reset_index(drop=True)
    return Fit(
        session=session,
        params=places.params(values["flat"]),
        result=Result[meta["result"]],
        history=history,
        method=None if meta.get("method") is None else SavedMethod(**meta["method"]),
        moments=(more["moments_centre"], more["moments_covariance"]) if "moments_centre" in more else None,
        samples=_samples(more),
        held_out=more.get("held_out"),
        **values,
        **{name: meta.get(name) for name in kept},
    )


@dataclasses.dataclass(frozen=True)
class SavedMethod(Procedure):
    """What a saved fit knows of the algorithm that made it."""

    name: str = ""
    description: str = ""
    reference: str = ""
    kind: Any = "hessian"
    options: str = ""

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
        "options": describe(method),
    }


def _samples(arrays: Mapping[str, np.ndarray]) -> Any:
    from hierax.results.posterior import Samples

    if "samples_flat" not in arrays:
        return None
    stats = {name.removeprefix("stats_"): value for name, value in arrays.items() if name.startswith("stats_")}
    return Samples(arrays["samples_flat"], arrays.get("samples_eta"), stats)


def data_hash(pop: Population) -> str:
    """Return a fingerprint of a population's arrays."""
    digest = hashlib.sha256()
    # Frozen ODE steps are the fit's doing, not data.
    for leaf in jax.tree.leaves(dataclasses.replace(pop, grids={})):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _estimator(spec: dict[str, Any]) -> Estimator:
    """Return the estimator of a saved description."""
    fields = dict(spec)
    kind = _ESTIMATORS[fields.pop("name")]
    parts = {"newton": Newton, "optimiser": QuasiNewton}
    return kind(**{name: parts[name](**value) if name in parts else value for name, value in fields.items()})
