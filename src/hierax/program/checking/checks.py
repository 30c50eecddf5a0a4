"""The contract between programs and estimators, checked before anything is compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from hierax.data.population import Population
from hierax.errors import ModelError, tell
from hierax.program.checking.independence import check_independence
from hierax.program.density import Program
from hierax.program.sites import is_tree

Check = Callable[[Program, Population], Iterator[str]]
# An array of at least this many numbers inside a model is taken for data, which belong in the population.
_LARGE = 5000
# With at least this many subjects, a leading axis whose length is their number is not taken for a coincidence.
_MANY_SUBJECTS = 8


def check_program(program: Program, pop: Population) -> None:
    """Check a program against a population.

    Raises
    ------
    ModelError
        Everything that breaks the contract, together.
    """
    if program.plate not in _plate_names(program):
        # Without the subject plate, all further findings would only follow from this one.
        raise ModelError("\n".join(_has_subjects(program, pop)))
    found = [text for check in _CHECKS for text in check(program, pop)]
    if found:
        raise ModelError("\n".join(found))
    check_independence(program, pop)
    _warn_of_closures(program, pop)


def _plate_names(program: Program) -> list[str]:
    return [name for name, msg in program.sites.messages.items() if msg["type"] == "plate"]


def _has_subjects(program: Program, pop: Population) -> Iterator[str]:
    if not program.sites.data:
        yield (
            f"The program observes nothing in plate '{program.plate}', because its plates are {_plate_names(program)}. "
            f"Open `with numpyro.plate('{program.plate}', pop.n_subjects, dim=-2)` around random effects and data, "
            f"or name your plate with plate=."
        )


def _no_subject_params(program: Program, pop: Population) -> Iterator[str]:
    for name, msg in program.sites.messages.items():
        if msg["type"] == "mutable":
            yield (
                f"Mutable site '{name}' is refused, because estimators run the program many times in any order and "
                f"state would leak between the runs. Use a module without mutable state."
            )
        inside = msg["type"] == "param" and program.plate in _frames(msg)
        shape = np.shape(msg["value"]) if inside and not is_tree(msg["value"]) else ()
        if inside and shape and shape[0] == pop.n_subjects:
            yield (
                f"param '{name}' of shape {shape} has one entry a subject, because it stands in plate "
                f"'{program.plate}'; nothing ties such parameters together. Make it a random effect "
                f"(numpyro.sample in the plate), or move the param out of the plate."
            )


def _no_other_plates(program: Program, pop: Population) -> Iterator[str]:
    for name, site in program.sites.population.items():
        frames = _frames(program.sites.messages[name])
        if frames and site.kind == "sample":
            yield (
                f"Latent site '{name}' stands in plate {frames}, not in plate '{program.plate}'. Marginal estimators "
                f"integrate over one subject at a time, and this site would tie subjects together. Move it into the "
                f"subject plate, or make it a population parameter."
            )


def _no_data_outside(program: Program, pop: Population) -> Iterator[str]:
    for name, msg in program.sites.messages.items():
        if msg["type"] == "sample" and msg["is_observed"] and program.plate not in _frames(msg):
            kind = "factor" if msg["infer"].get("is_auxiliary") else "observed site"
            yield (
                f"The {kind} '{name}' stands outside plate '{program.plate}', so that it belongs to no subject and "
                f"may tie them together. Move it into the plate."
            )


def _individual_shapes(program: Program, pop: Population) -> Iterator[str]:
    n, t = pop.n_subjects, pop.n_records
    for name, shape in program.sites.individual.items():
        frames = program.sites.messages[name]["cond_indep_stack"]
        if shape == (n,) and any(frame.name == program.plate and frame.dim == -2 for frame in frames):
            yield (
                f"Individual parameter '{name}' has shape {shape}, but the subject plate is dim -2, so that it must be "
                f"(subject, 1) = ({n}, 1): an event axis was taken off with `eta[:, 0]` or the like. Use `eta[..., 0]`."
            )
        if len(shape) == 2 and shape == (n, n) and n not in (1, t):
            yield (
                f"Individual parameter '{name}' has shape {shape} = (subject, subject), because an array of shape "
                f"(subject,) met one of shape (subject, 1), as in `eta[..., 0] * x`. Use `x[:, None]`, or a covariate "
                f"of the population, which is (subject, 1)."
            )


_CHECKS: tuple[Check, ...] = (
    _individual_shapes,
    _has_subjects,
    _no_subject_params,
    _no_other_plates,
    _no_data_outside,
)


def _frames(msg: dict[str, Any]) -> list[str]:
    return [frame.name for frame in msg.get("cond_indep_stack", ())]


def _warn_of_closures(program: Program, pop: Population) -> None:
    """Warn of arrays that look like data, which the model closes over instead of reading them from the population."""
    closed = jax.make_jaxpr(lambda pop, params: program.run(pop, params, None).z)(pop, program.start())
    for constant in closed.consts:
        shape = np.shape(constant)
        by_subject = bool(shape) and shape[0] == pop.n_subjects >= _MANY_SUBJECTS
        if np.size(constant) >= _LARGE or by_subject:
            tell(
                f"The model closes over an array of shape {shape}, which is compiled in as a constant and cannot "
                f"follow a subset of the subjects. Pass it with pop.with_data(name=array) and read pop.data['name'].",
            )
