"""Reading a program once for each shape of population, and keeping what was compiled for the last programs used."""

from __future__ import annotations

import collections
import itertools
import threading
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hierax.data.population import Population
from hierax.errors import ModelError, tell
from hierax.program.checking.checks import check_program
from hierax.program.density import Program
from hierax.program.identity import parts
from hierax.program.sites import read_sites
from hierax.program.trace import RUNNING, Model

# How many programs are kept, the last ones used; each is a model for one shape of population. What is compiled for one
# takes some 20 MiB and 400 memory maps, of which a process may have 65 530.
KEPT = 32
# JAX's caches are cleared each time this many programs have been dropped, as they would keep some 3 MiB of each.
FORGET = 128
# How many compiled functions are kept for one program: other priors, options or free parameters need further ones.
BUILT = 128
# How many model functions that are the same program are remembered for it.
_MAX_EQUIVALENT = 4

# Plate, structure of the population and precision → the programs read; in both, the last used is last.
_programs: collections.OrderedDict[Hashable, list[Program]] = collections.OrderedDict()
# Model's code → the parts of the model that reading it changes (counters of its calls, say).
_written: dict[str, set[str]] = {}
# Hash of the parts of a model → hashes of the shapes for which its programs were dropped.
_dropped: collections.defaultdict[int, set[int]] = collections.defaultdict(set)
_drops = itertools.count(1)


def structure(pop: Population) -> Hashable:
    """Return what a compiled function depends on in a population: names, shapes and types, but no values."""
    leaves, tree = jax.tree.flatten(pop)
    return tree, tuple((np.shape(leaf), jnp.result_type(leaf).name) for leaf in leaves)


def cached(program: Program, key: Hashable, build: Callable[[], Any]) -> Any:
    """Return what was built for this program and key before, or build it.

    Raises
    ------
    ModelError
        Something that the model reads has changed since the program was read, so that what would be built now belongs
        to another model.
    """
    built = program.built
    with _lock:
        if key in built:
            built[key] = built.pop(key)
            return built[key]
        _still_the_same(program)
        built[key] = found = build()
        while len(built) > BUILT:
            del built[next(iter(built))]
        return found


def read_program(model: Model, pop: Population, plate: str = "subject", *, checked: bool = True) -> Program:
    """Parse and check a program for a shape of population, or return the one that was read before.

    Programs are told apart by what they are made of: code, closed-over values, globals that they read, attributes of
    the object that a method belongs to. ``checked=False`` leaves out the checks, for another design of a population
    that the program was already checked with.
    """
    if not pop.n_subjects:
        raise ModelError("The population has no subjects, so that there is nothing to compute. Pick one or more.")
    key = (plate, structure(pop), jax.config.read("jax_enable_x64"))
    with _lock:
        known = _programs.setdefault(key, [])
        _programs.move_to_end(key)
        made = parts(model)
        program = next((one for one in known if _same(made, one.parts)), None)
        if program is None:
            program = Program(model, read_sites(model, pop, plate), plate)
            program.parts.update(_without_what_it_writes(model, made))
            known.append(program)
            _drop()
        else:
            known.remove(program)
            known.append(program)
        _run_by(program, model)
        if checked and "checked" not in program.built:
            check_program(program, pop)
            program.built["checked"] = True
    return program


def changes(program: Program) -> list[str]:
    """Return which parts of a model have changed since the program was read from it."""
    now, then = _kept_parts(parts(program.model)), program.parts
    return sorted(place for place in now.keys() | then.keys() if now.get(place) != then.get(place))


def forget_programs() -> None:
    """Drop all programs and everything that was compiled for them."""
    with _lock:
        _programs.clear()
        _dropped.clear()


# Programs are read and looked up by one thread at a time. The lock is that of running programs, because two threads
# that took two locks in different orders could block each other.
_lock: threading.RLock = RUNNING  # type: ignore[valid-type]


def _run_by(program: Program, model: Model) -> None:
    """Set the function by which a program is run to one that is known to be the same program."""
    object.__setattr__(program, "model", model)
    program.models[:] = [*(other for other in program.models if other is not model), model][-_MAX_EQUIVALENT:]


def _still_the_same(program: Program) -> None:
    """Raise a ModelError if the model has changed since the program was read from it.

    If several functions were the same program, one that has not changed is enough, and the program is run by it.
    """
    found = changes(program)
    for model in program.models if found else ():
        if _same(parts(model), program.parts):
            _run_by(program, model)
            return
    if found:
        raise ModelError(
            f"The model has changed since this program was read from it ({', '.join(found[:3])}), so that what is "
            f"asked for now would mix two models. Fit again, or restore what has changed."
        )


def _same(made: dict[str, str], known: dict[str, str]) -> bool:
    return _kept_parts(made) == known


def _kept_parts(made: dict[str, str]) -> dict[str, str]:
    ignored = _written.get(_code(made), set())
    return {place: text for place, text in made.items() if not _within(place, ignored)} if ignored else made


def _code(made: dict[str, str]) -> str:
    return f"{made.get('code')} {made.get('')}"


def _without_what_it_writes(model: Model, before: dict[str, str]) -> dict[str, str]:
    """Return the parts of a model that reading it has left as they were.

    Without the other parts, a model that counts its calls or stores computed values stays the same after each call.
    """
    after = parts(model)
    written = {place for place in before.keys() | after.keys() if before.get(place) != after.get(place)}
    if written:
        _written.setdefault(_code(before), set()).update(written)
    return _kept_parts(after)


def _within(place: str, ignored: set[str]) -> bool:
    """Return whether a place is one of those ignored, or lies inside one."""
    return place in ignored or any(place.startswith((f"{other}.", f"{other}[", f"{other} ")) for other in ignored)


def _drop() -> None:
    """Drop the programs that were used longest ago, with what was compiled for them."""
    while sum(map(len, _programs.values())) > KEPT:
        oldest = next(iter(_programs))
        if _programs[oldest]:
            # Fits may still refer to the program, so that what is compiled is freed here; it is built again if needed.
            old = _programs[oldest].pop(0)
            old.built.clear()
            _count_dropped(old, hash(oldest))
        if not _programs[oldest]:
            del _programs[oldest]


def _count_dropped(program: Program, shape: int) -> None:
    """Clear JAX's caches from time to time, and warn once of a model that is compiled for very many shapes."""
    which = hash(frozenset(program.parts.items()))
    if next(_drops) % FORGET == 0:
        jax.clear_caches()
    known = len(_dropped[which])
    _dropped[which].add(shape)
    if known < KEPT == len(_dropped[which]):
        tell(
            f"One model was read for more than {KEPT} populations of different shapes (counts of subjects, records "
            f"or doses), each of which is compiled anew. Give pop.bucket() instead of pop: populations of about the "
            f"same size then share one shape, and padding does not change results."
        )
