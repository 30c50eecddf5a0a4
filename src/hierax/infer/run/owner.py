"""What a saved state or fit belongs to: program, data, priors and options, part by part."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from hierax.data.population import ARRAYS, Population
from hierax.program.density import Program, unwrap
from hierax.program.digest import program_digest
from hierax.program.identity import digest, lasting_parts
from hierax.program.priors import OWN, tensors_of

# Names of the parts of an owner that are treated in their own way when two owners are compared.
PROGRAM, SHAPE, VERSIONS = "program", "sizes of the data", "versions"
# Packages whose versions are a part of an owner.
_PACKAGES = ("hierax", "jax", "numpyro")
# What the parts of a population are called in messages.
_NAMES = {"dv": "observations", "mask": "which records are observations", "events": "doses", "data": "with_data arrays"}


def owner(program: Program, pop: Population, priors: Mapping[str, Any]) -> dict[str, str]:
    """Return what a fit belongs to, except its options, as text by name: program, data, and priors that count."""
    return {
        PROGRAM: program_digest(program, pop),
        VERSIONS: ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES),
        "plate": program.plate,
        **population_parts(pop),
        **prior_parts(program, priors),
    }


def population_parts(pop: Population, prefix: str = "") -> dict[str, str]:
    """Return a population as text by name: digests of its arrays, and all else (names, ids, interpolation)."""
    # Frozen ODE steps are made by the fit and are not data.
    bare = dataclasses.replace(pop, grids={}, ids=None)
    out = {SHAPE: _short(str([np.shape(leaf) for leaf in jax.tree.leaves(bare)]))}
    for name in (field.name for field in dataclasses.fields(pop) if field.name not in ("grids", "ids", "covariates")):
        value = getattr(pop, name)
        out[_NAMES.get(name, name.replace("_", " "))] = _hash(value) if name in ARRAYS else _text(value)
    out["covariates"] = _hash([np.asarray(pop.covariates[name]) for name in sorted(pop.covariates)])
    out["covariate names"] = str(sorted(pop.covariates))
    out["ids"] = _text([str(one) for one in pop.subject_ids])
    return {f"{prefix}{name}": text for name, text in out.items()}


def observation_digest(pop: Population) -> str:
    """Return a digest of what was observed in whom and when; it tells whether two likelihoods are of the same data.

    Covariates, doses and padding are not part of it.
    """
    rows = np.flatnonzero(np.asarray(pop.subject_mask))
    found = hashlib.sha256()
    for name in sorted(pop.mask):
        mask = np.asarray(pop.mask[name])[rows]
        arrays = [pop.times, pop.dv[name], *(group[name] for group in (pop.cens, pop.limit) if name in group)]
        found.update(f"{name} {mask.sum(1).tolist()}".encode())
        for array in arrays:
            found.update(np.asarray(array, float)[rows][mask].tobytes())
    return found.hexdigest()[:32]


def prior_parts(program: Program, priors: Mapping[str, Any]) -> dict[str, str]:
    """Return each prior with its values as text by name; priors of network weights tensor by tensor."""
    out = {}
    for name, prior in priors.items():
        if prior is OWN:
            out[f"prior of {name}"] = OWN
            continue
        found = [_distribution(fn) for fn, _ in tensors_of(name, prior, program.sites.population[name].start)]
        out[f"prior of {name}"] = found[0] if len(found) == 1 else _text(found)
    return out


def option_parts(thing: Any, name: str) -> dict[str, str]:
    """Return an estimator's options as text by name, including the values that functions among them close over."""
    return lasting_parts(thing, name)


def differences(saved: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return in words, item by item, what differs between two owners.

    Programs are compared by their traced operations, which also change with the sizes of the data and with versions.
    Where these differ, the program is therefore not named.
    """
    other = sorted(name for name in saved.keys() | now.keys() if saved.get(name) != now.get(name))
    if SHAPE in other or VERSIONS in other:
        other = [name for name in other if name != PROGRAM]
    return [_said(name, saved.get(name, "none"), now.get(name, "none")) for name in other]


def population_part(items: Mapping[str, str]) -> dict[str, str]:
    """Return the parts of an owner that describe the population."""
    others = (PROGRAM, VERSIONS, "plate")
    return {name: text for name, text in items.items() if name not in others and not name.startswith("prior of ")}


def both_digests(saved: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return a short text with the digest of the saved fit and that of the present one, for a message."""
    return f"digest {digest(saved)[:8]} there, {digest(now)[:8]} here"


def _said(name: str, there: str, here: str) -> str:
    short = max(len(there), len(here)) <= 100
    return f"{name} ({there} there, {here} here)" if short else name


def _distribution(fn: Any) -> str:
    """Return a distribution's name and parameters, and a digest of all its parts."""
    inner = unwrap(fn)[1]
    values = {name: np.asarray(getattr(inner, name)) for name in type(inner).arg_constraints if hasattr(inner, name)}
    shown = ", ".join(f"{name}={value.tolist()}" for name, value in values.items() if value.size <= 4)
    return f"{type(inner).__name__}({shown}) {digest(lasting_parts(fn))[:6]}"


def _text(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:40]}... {_short(text)}"


def _hash(tree: Any) -> str:
    leaves, structure = jax.tree.flatten(tree)
    found = hashlib.sha256(str(structure).encode())
    for leaf in leaves:
        array = np.ascontiguousarray(leaf)
        found.update(f"{array.shape}{array.dtype}".encode())
        found.update(array.tobytes())
    return found.hexdigest()[:12]


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
