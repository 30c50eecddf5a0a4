"""Sorting the sites of a program into population parameters, random effects, data and individual parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array
from numpyro.distributions import biject_to, constraints

from hierax.data.population import Population
from hierax.dynamics.notes import Listener, Note
from hierax.errors import ModelError
from hierax.program.checking.survey import Look, Survey, survey
from hierax.program.coordinates import innermost
from hierax.program.trace import Model, Run, cast_weights, run_program, subject_axis


@dataclasses.dataclass(frozen=True)
class PopulationSite:
    """A population parameter: a ``param`` or latent ``sample`` site in no plate, or a network's weights.

    ``transform`` leads from unconstrained to constrained space; ``start`` is the constrained start value.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    transform: Any
    constraint: str
    prior: Any
    start: Any


@dataclasses.dataclass(frozen=True)
class EffectSite:
    """A random effect; ``names`` are those of its coordinates, in the order of the flat vector."""

    name: str
    shape: tuple[int, ...]
    axis: int
    names: tuple[str, ...]
    distribution: str
    label: str
    gaussian: bool
    flow: bool
    warped: bool
    plates: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of coordinates per subject."""
        return len(self.names)

    def unflatten(self, flat: Array) -> Array:
        """Return coordinates ``(subject, size)`` in the shape of the site's coordinate."""
        rest = [length for axis, length in enumerate(self.shape) if axis != self.axis]
        return jnp.moveaxis(flat.reshape(flat.shape[0], *rest), 0, self.axis)

    def flatten(self, z: Array) -> Array:
        """Return coordinates in the shape of the site's coordinate as ``(subject, size)``."""
        moved = jnp.moveaxis(z, self.axis, 0)
        return moved.reshape(moved.shape[0], -1)


@dataclasses.dataclass(frozen=True)
class DataSite:
    """An observed site in the subject plate, or a ``factor`` in it."""

    name: str
    dim: int
    distribution: str
    factor: bool


@dataclasses.dataclass(frozen=True)
class Sites:
    """All sites of a program by their class, for one shape of population.

    ``look`` is a compiled function of such a population and of population parameters; it returns a ``Survey`` of a run.
    """

    population: dict[str, PopulationSite]
    effects: dict[str, EffectSite]
    data: dict[str, DataSite]
    individual: dict[str, tuple[int, ...]]
    messages: dict[str, dict[str, Any]]
    last_effect: str | None
    odes: tuple[str, ...] = ()
    notes: list[Note] = dataclasses.field(default_factory=list)
    look: Look | None = None

    @property
    def effect_names(self) -> tuple[str, ...]:
        """Names of all random-effect coordinates, ``eta[0]``, ``eta[1]``, ..."""
        return tuple(name for site in self.effects.values() for name in site.names)


def read_sites(model: Model, pop: Population, plate: str) -> Sites:
    """Run the program abstractly and sort its sites into classes; start values are computed once."""
    read: list[tuple[dict[str, Any], dict[str, EffectSite]]] = []
    notes: list[Note] = []

    def starts(pop: Population, params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], Survey]:
        listener = Listener()
        with listener:
            run = run_program(model, pop, params, plate=plate)
        effects = {name: _effect_site(name, run, plate) for name in run.coordinates}
        messages = {name: jax.tree.map(_without_tracers, msg) for name, msg in run.messages.items()}
        read.append((messages, effects))
        notes[:] = listener.notes
        here = {name: msg for name, msg in run.messages.items() if _is_population(msg, plate)}
        constraints = {name: _constraint(msg) for name, msg in here.items()}
        seen = survey(run, listener.notes, pop, _data_names(run, plate))
        return {name: cast_weights(msg["value"]) for name, msg in here.items()}, constraints, seen

    # Constraints come out of the compiled function too: their bounds may have been computed in the program.
    compiled = jax.jit(starts)
    values, supports = jax.tree.map(np.asarray, compiled(pop, {})[:2])
    messages, effects = read[-1]
    if jax.tree.leaves(supports):
        _refuse_moving_bounds(lambda params: jax.jit(starts)(pop, params)[1], values, supports)
    population, data, individual = {}, {}, {}
    for name, msg in messages.items():
        dim = subject_axis(msg, plate) if "cond_indep_stack" in msg else None
        if _is_population(msg, plate):
            population[name] = _population_site(name, msg, values[name], supports[name])
        elif msg["type"] == "sample" and msg["is_observed"] and dim is not None:
            factor = bool(msg["infer"].get("is_auxiliary"))
            data[name] = DataSite(name, dim, "factor" if factor else _describe(msg["fn"]), factor)
        elif msg["type"] == "deterministic" and dim is not None:
            individual[name] = tuple(np.shape(msg["value"]))
    last = list(effects)[-1] if effects else None
    odes = tuple(name for name, msg in messages.items() if msg["type"] == "ode")
    # The same compiled function is the ``look`` at other data of this structure.
    said = list(notes)
    read.clear()
    return Sites(population, effects, data, individual, messages, last, odes, said, lambda *at: compiled(*at)[2])


def _without_tracers(leaf: Any) -> Any:
    """Return the shape and type in place of a traced array, which is no number outside of its function."""
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if isinstance(leaf, Tracer) else leaf


def _data_names(run: Run, plate: str) -> list[str]:
    """Return the names of the observed sites in the subject plate that are not factors."""
    return [
        name
        for name, msg in run.messages.items()
        if msg["type"] == "sample" and msg["is_observed"] and not msg["infer"].get("is_auxiliary")
        if subject_axis(msg, plate) is not None
    ]


def _is_population(msg: dict[str, Any], plate: str) -> bool:
    if msg["type"] == "param":
        return not _empty(msg["value"])
    latent = msg["type"] == "sample" and not msg["is_observed"]
    return latent and plate not in (frame.name for frame in msg["cond_indep_stack"])


def _empty(value: Any) -> bool:
    """Return whether a site of a network holds no weights, as random_flax_module leaves it when it samples them."""
    numbers = (jax.Array, jax.ShapeDtypeStruct, np.ndarray, float, int)
    return not any(isinstance(leaf, numbers) for leaf in jax.tree.leaves(value))


def _constraint(msg: dict[str, Any]) -> Any:
    return msg["fn"].support if msg["type"] == "sample" else msg["kwargs"].get("constraint", constraints.real)


def _refuse_moving_bounds(supports_at: Any, values: dict[str, Any], supports: dict[str, Any]) -> None:
    """Refuse a bound that depends on another parameter: its site would have no fixed unconstrained space."""
    moved = {
        name: biject_to(supports[name])(np.asarray(biject_to(supports[name]).inv(value)) + 0.1)
        for name, value in values.items()
        if not isinstance(value, dict | list)
    }
    for name, other in supports_at(moved).items():
        pairs = zip(jax.tree.leaves(supports[name]), jax.tree.leaves(other), strict=True)
        if not all(np.array_equal(one, two, equal_nan=True) for one, two in pairs):
            raise ModelError(
                f"The support of '{name}' has a bound that depends on another parameter, so that its unconstrained "
                f"scale is not fixed. Write it as a transform of an unbounded parameter, e.g. low + exp(x)."
            )


def _population_site(name: str, msg: dict[str, Any], start: Any, constraint: Any) -> PopulationSite:
    if msg["type"] == "sample" and msg["fn"].is_discrete:
        raise ModelError(
            f"Latent site '{name}' is discrete ({type(msg['fn']).__name__}), and estimators need derivatives. "
            f"Write the mixture with MixtureSameFamily, which sums over the classes."
        )
    if msg["type"] == "sample":
        prior, kind = msg["fn"], "sample"
    else:
        prior = None
        kind = "weights" if is_tree(msg["value"]) else "param"
    return PopulationSite(
        name=name,
        kind=kind,
        shape=() if kind == "weights" else tuple(np.shape(start)),
        transform=biject_to(constraint),
        constraint=constraint_name(constraint),
        prior=prior,
        start=start,
    )


def constraint_name(constraint: Any) -> str:
    """Return the name of a constraint: Real, Positive, PositiveDefinite, ..."""
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    return type(constraint).__name__.lstrip("_").removesuffix("Constraint") or "Real"


def _effect_site(name: str, run: Run, plate: str) -> EffectSite:
    msg, coordinate = run.messages[name], run.coordinates[name]
    dim = subject_axis(msg, plate)
    assert dim is not None
    axis = len(coordinate.shape) - coordinate.event_dim + dim
    rest = [length for position, length in enumerate(coordinate.shape) if position != axis]
    while rest and rest[0] == 1:
        rest = rest[1:]
    count = int(np.prod(rest)) if rest else 1
    names = (
        (name,)
        if count == 1 and not rest
        else tuple(f"{name}[{','.join(map(str, index))}]" for index in np.ndindex(*rest))
    )
    others = tuple(frame.name for frame in msg["cond_indep_stack"] if frame.name != plate)
    return EffectSite(
        name,
        coordinate.shape,
        axis,
        names,
        _describe(msg["fn"]),
        coordinate.label,
        coordinate.gaussian,
        coordinate.flow,
        coordinate.warped,
        others,
    )


def _describe(fn: Any) -> str:
    """Return the name of a distribution without its wrappers."""
    return type(innermost(fn)).__name__


def is_tree(value: Any) -> bool:
    """Return whether a parameter holds several arrays, as the dicts of flax and the lists of NumPyro's networks do."""
    return isinstance(value, dict | list | tuple)
