"""Loading saved fits, after a check that program, data and priors are those of the fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hierax.data.population import Population
from hierax.errors import tell
from hierax.infer.fitting.samples import Samples
from hierax.infer.marginal.estimator import Estimator
from hierax.infer.marginal.session import Session
from hierax.infer.procedure import Procedure
from hierax.infer.result import Result
from hierax.infer.run.archive import FIT, read_archive
from hierax.infer.run.owner import VERSIONS, both_digests, differences, owner, population_part
from hierax.program.density import Program
from hierax.program.parameters import Layout, layout
from hierax.program.priors import collect_priors
from hierax.program.read import read_program
from hierax.program.trace import Model
from hierax.results.files.guide import load_variational
from hierax.results.files.options import decode, encode, unsaved
from hierax.results.files.storage import ARRAYS, FORMAT, PLAIN, SavedMethod
from hierax.results.fit import Fit

if TYPE_CHECKING:
    pass


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
        The estimator of the fit. It is needed to fit again (``bootstrap``) where its options hold functions, such as an
        optimiser of optax, because functions are not in the file.

    Returns
    -------
    Fit
        A fit that can do all that the saved one could.

    Raises
    ------
    ValueError
        Program, data or priors are not those of the fit, and the message lists what differs; or the file is damaged, or
        not a saved fit.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / 'decay.fit'
    >>> fit.save(path)
    >>> hx.load_fit(path, model, pop).ofv == fit.ofv
    True
    """
    path = Path(path)
    meta, arrays = read_archive(path, FIT)
    if meta.get("format") != FORMAT:
        raise ValueError(f"{path} has format {meta.get('format')}, and this version reads {FORMAT}. Refit, or upgrade.")
    program = read_program(model, pop, meta["plate"])
    places = layout(program)
    counted = _checked_priors(path, meta, program, places, pop, priors)
    if estimator is not None and encode(estimator)["class"] != (_method_spec(meta) or meta["estimator"])["class"]:
        raise ValueError(
            f"The fit in {path} is by {(_method_spec(meta) or meta['estimator'])['class']}, and estimator= is "
            f"{type(estimator).__name__}. Pass the estimator of the fit, or leave it out."
        )
    objective = estimator if isinstance(estimator, Estimator) else _estimator(path, meta["estimator"])
    session = Session(program, objective, pop, places, counted)
    method = estimator if isinstance(estimator, Procedure) else _method(meta["method"])
    values: dict[str, Any] = {name: arrays[name] for name in ARRAYS}
    plain: dict[str, Any] = {name: meta.get(name) for name in PLAIN}
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


def _checked_priors(
    path: Path, meta: dict[str, Any], program: Program, places: Layout, pop: Population, priors: Any
) -> dict[str, Any]:
    """Return the priors that count, after checking that program, data and priors are those of the saved fit."""
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


def _method_spec(meta: Mapping[str, Any]) -> dict[str, Any] | None:
    return None if meta["method"] is None else meta["method"]["options"]


def _method(saved: dict[str, Any] | None) -> Procedure | None:
    """Return the algorithm of a saved fit, or only its description where its options cannot all be restored."""
    if saved is None:
        return None
    if not unsaved(saved["options"]):
        try:
            return decode(saved["options"])
        except (LookupError, TypeError, ValueError):
            # The class is not known here, or its options have changed since the fit was saved.
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
