"""Running a NumPyro program with given population parameters and random effects."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from numpyro import handlers
from numpyro.primitives import Messenger

from hierax.data.population import Population
from hierax.errors import ModelError
from hierax.program.checking.invalid import explain_invalid
from hierax.program.coordinates import Coordinate, median, working_coordinate

Model = Callable[[Population], Any]

# The types of messages that a run keeps. NumPyro makes all but "ode" and "network", which are made by Hierax.
_KINDS = ("sample", "param", "deterministic", "plate", "mutable", "ode", "network")


# NumPyro's stack of handlers is shared by all threads. A thread holds this lock while it runs a program or has a
# handler around one.
RUNNING = threading.RLock()


class Alone(Messenger):
    """A handler that programs of other threads cannot meet, because it holds ``RUNNING`` while it is active."""

    def __enter__(self) -> Any:
        RUNNING.acquire()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        try:
            super().__exit__(*error)
        finally:
            RUNNING.release()


class _Stop(Exception):
    """Ends a run of the program once everything that was asked for is known."""


@dataclasses.dataclass
class Run:
    """The results of one run of the program.

    Attributes
    ----------
    messages : dict
        Site name → the NumPyro message after the site was processed.
    coordinates : dict
        Random effect → its working coordinate.
    z : dict
        Random effect → value of the coordinate that was used.
    log_det : dict
        Random effect whose value was held → log |d value/d coordinate|, of its batch shape.
    """

    messages: dict[str, dict[str, Any]]
    coordinates: dict[str, Coordinate]
    z: dict[str, Array]
    log_det: dict[str, Array]


class _Bind(Alone):
    """Gives sites their values: parameters as they are, random effects through their coordinates."""

    def __init__(
        self,
        fn: Callable[..., Any],
        plate: str,
        n_subjects: int,
        params: Mapping[str, Any],
        effects: Mapping[str, Array] | None,
        stop_after: str | None,
        held: Mapping[str, Array],
    ):
        super().__init__(fn)
        self.plate, self.n_subjects, self.params = plate, n_subjects, params
        self.effects, self.stop_after, self.held = effects, stop_after, held
        self.run = Run({}, {}, {}, {})

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "plate" and msg["name"] == self.plate and msg["args"][0] != self.n_subjects:
            raise ModelError(
                f"Plate '{self.plate}' has size {msg['args'][0]}, but the population has {self.n_subjects} subjects "
                f"on its axis. Open it with `numpyro.plate('{self.plate}', pop.n_subjects, dim=-2)`."
            )
        if msg["type"] == "param" and msg["name"] in self.params:
            msg["value"] = self.params[msg["name"]]
        elif msg["type"] == "sample" and not msg["is_observed"] and msg["value"] is None:
            if msg["name"] in self.params:
                msg["value"] = self.params[msg["name"]]
            elif self.plate in (frame.name for frame in msg["cond_indep_stack"]):
                self._refuse_module(msg["name"])
                msg["value"] = self._effect(msg["name"], msg["fn"])
            else:
                msg["value"] = median(msg["fn"])

    def _refuse_module(self, name: str) -> None:
        """Refuse a sampled network inside the subject plate, before it fails by weights of a wrong shape."""
        if "/" in name and f"{name.split('/')[0]}$params" in self.run.messages:
            raise ModelError(
                f"Site '{name}' comes from a random_flax_module or random_nnx_module inside plate '{self.plate}', "
                f"which gives every subject a network under one shared name. Use nn.individualise for networks by "
                f"subject, or call the module outside the plate."
            )

    def _effect(self, name: str, fn: Any) -> Array:
        coordinate = working_coordinate(name, fn)
        if name in self.held:
            self.run.coordinates[name] = coordinate
            self.run.z[name], self.run.log_det[name] = coordinate.inverse(self.held[name])
            return self.held[name]
        given = None if self.effects is None else self.effects.get(name)
        z = coordinate.location() if given is None else given
        self.run.coordinates[name], self.run.z[name] = coordinate, z
        return coordinate.forward(z)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        name = msg.get("name")
        if name is not None and msg["type"] in _KINDS:
            if msg["type"] == "ode" and name in self.run.messages:
                raise ModelError(
                    f"Two solves are called '{name}', but each has steps of its own, which are kept by name. Give "
                    f"one of them another: solve_ode(..., name='other')."
                )
            self.run.messages[name] = msg
            if name == self.stop_after:
                raise _Stop


def run_program(
    model: Model,
    pop: Population,
    params: Mapping[str, Any],
    effects: Mapping[str, Array] | None = None,
    *,
    plate: str = "subject",
    stop_after: str | None = None,
    held: Mapping[str, Array] | None = None,
) -> Run:
    """Run the program once.

    Parameters
    ----------
    params : mapping
        Site → constrained value, for ``param`` sites and population-level ``sample`` sites. Sites left out take
        their own start (a ``param``'s value, a prior's median).
    effects : mapping, optional
        Random effect → value of its working coordinate; those left out take their reference point.
    stop_after : str, optional
        Name of the site after which nothing of the program needs to run.
    held : mapping, optional
        Random effect behind a flow → its value, from which the working coordinate is found.
    """
    bound = _Bind(handlers.seed(model, rng_seed=0), plate, pop.n_subjects, params, effects, stop_after, held or {})
    try:
        bound(pop)
    except _Stop:
        pass
    except ValueError as error:
        advice = explain_invalid(error, bound.run.messages)
        if advice is None:
            raise
        raise ModelError(advice) from error
    return bound.run


def subject_axis(msg: Mapping[str, Any], plate: str) -> int | None:
    """Return the batch dim (negative) of the subject plate at a site, or None outside it."""
    for frame in msg["cond_indep_stack"]:
        if frame.name == plate:
            return frame.dim
    return None


def per_subject(values: Array, dim: int, n_subjects: int) -> Array:
    """Return the sum of an array of batch shape over every axis but that of subjects, ``(subject,)``."""
    values = jnp.asarray(values)
    if values.ndim < -dim:
        values = values.reshape((1,) * (-dim - values.ndim) + values.shape)
    moved = jnp.moveaxis(values, values.ndim + dim, 0)
    return jnp.broadcast_to(moved.reshape(moved.shape[0], -1).sum(-1), (n_subjects,))


def site_log_prob(msg: Mapping[str, Any], density: Array | None = None) -> Array:
    """Return the log density of a site, of its batch shape, with the program's scale and mask."""
    value: Array = msg["fn"].log_prob(msg["value"]) if density is None else density
    return value if msg["scale"] is None else value * msg["scale"]


def cast_weights(tree: Any) -> Any:
    """Cast floating leaves to the working precision (a plain Dense layer is float32 even under x64)."""
    dtype = jnp.result_type(float)
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, dtype) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) else leaf, tree
    )


__all__ = ["Model", "Run", "cast_weights", "per_subject", "run_program", "site_log_prob", "subject_axis"]
