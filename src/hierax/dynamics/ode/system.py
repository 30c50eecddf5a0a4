"""The vector field of all subjects: the user's function of one subject, with its arguments at any time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from numpyro.primitives import Messenger

from hierax.data.population import Population
from hierax.dynamics.doses.arguments import compartment_number, individual
from hierax.dynamics.doses.breaks import read_breaks, strictly_inside
from hierax.dynamics.linear.forcing import Forcing, Transit, TransitInput
from hierax.dynamics.ode.field import Field
from hierax.dynamics.ode.states import States, leaf_name, read_states
from hierax.errors import ModelError

VectorField = Callable[[Any, Any, Any], Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """What the vector field knows of each row (a subject) during one step; rows are the first axis of every array.

    Attributes
    ----------
    constant, value, slope : list
        Arguments that are constant; values at the time ``reference`` of those that change; and slopes of the latter
        (for linear interpolation; empty otherwise).
    reference, now : array, (row,)
        The time of ``value``, and a time inside the step.
    segment : array, (row,)
        Segment of the history.
    rate : array, (row, compartment)
        Infusion rates.
    forcings, transits : list
        Known functions of time.
    """

    constant: list[Array]
    value: list[Array]
    slope: list[Array]
    reference: Array
    now: Array
    segment: Array
    rate: Array
    forcings: list[Forcing]
    transits: list[TransitInput]


@dataclasses.dataclass(frozen=True)
class System:
    """A vector field with its states, arguments and dosed compartments, as solvers need it.

    Attributes
    ----------
    single : callable
        ``(t, y, rows, consts)`` → derivative, for one row.
    consts : list of arrays
        Arrays that the user's function closes over. They are explicit, so that solvers can let derivatives through or
        stop them.
    states : States
        Names and shapes.
    y0 : array, (state, subject)
        Initial states.
    arguments : Arguments
        The arguments as they were given.
    numbers : tuple of int
        The dosed compartments, in the order of the last axis of ``rate``.
    place : array, (state, compartment)
        1 where the dosed compartment is that state, else 0.
    user : Field
        The vector field as the user wrote it.
    breaks : array, (subject, break), or None
        Times at which the field jumps.
    cumulative : bool array, (state,), or None
        States that start from their initial value at a steady-state record, because no derivative depends on them; None
        if there are none.
    """

    single: Callable[[Any, Any, Rows, Any], Array]
    consts: Any
    states: States
    y0: Array
    arguments: Arguments
    numbers: tuple[int, ...]
    place: Array
    user: Field
    breaks: Any = None
    cumulative: Any = None

    def field(self, rows: Rows, consts: Any) -> Callable[[Array, Array], Array]:
        """Return the vector field of all rows: (row,), (state, row) → (state, row)."""
        batched = jax.vmap(self.single, in_axes=(0, -1, 0, None), out_axes=-1)
        return lambda t, y: batched(t, y, rows, consts)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The leaves of ``args`` by kind; ``order`` says for each leaf where it is found: (kind, index)."""

    tree: Any
    order: tuple[tuple[str, int], ...]
    constant: list[Array]
    varying: list[Array]
    forcings: list[Forcing]
    transits: list[TransitInput]

    def gather(self, rows: Rows, t: Any) -> Any:
        """Return the user's ``args`` of one row at time ``t``."""
        leaves: dict[str, list[Any]] = {
            "constant": rows.constant,
            "varying": [
                value + slope * (t - rows.reference) if rows.slope else value
                for value, slope in zip(rows.value, rows.slope or rows.value, strict=True)
            ],
            "forcing": [forcing.at(rows.now, rows.segment) for forcing in rows.forcings],
        }
        return jax.tree.unflatten(self.tree, [leaves[kind][index] for kind, index in self.order])

    def at_first(self) -> list[Any]:
        """Return the leaves at the first record, with the subject as first axis; None for a function of time."""
        leaves = {"constant": self.constant, "varying": [leaf[:, 0] for leaf in self.varying]}
        return [leaves[kind][index] if kind in leaves else None for kind, index in self.order]


def read_arguments(pop: Population, args: Any) -> Arguments:
    """Sort the leaves of ``args`` into constants, values by record, and functions of time.

    Raises
    ------
    ValueError
        If a leaf has another shape, or is not an array.
    """
    pairs, tree = jax.tree_util.tree_flatten_with_path(args, is_leaf=lambda leaf: isinstance(leaf, Forcing))
    found: dict[str, list[Any]] = {"constant": [], "varying": [], "forcing": []}
    order = []
    for path, leaf in pairs:
        kind, value = _read_leaf(pop, leaf_name(path) or "args", leaf)
        order.append((kind, len(found[kind])))
        found[kind].append(value)
    return Arguments(tree, tuple(order), found["constant"], found["varying"], found["forcing"], [])


def _read_leaf(pop: Population, name: str, leaf: Any) -> tuple[str, Any]:
    if isinstance(leaf, Forcing):
        return "forcing", leaf
    if callable(leaf) or isinstance(leaf, str):
        raise ValueError(
            f"args[{name!r}] is a {type(leaf).__name__}, but args are arrays by subject. What is shared by all "
            f"subjects, such as a network from flax_module, is closed over by the vector field or passed in shared=."
        )
    value = jnp.asarray(leaf, float)
    n, t = pop.n_subjects, pop.n_records
    if value.ndim == 0:
        return "constant", jnp.broadcast_to(value, (n,))
    shape = value.shape
    if shape in ((n, 1), (1, 1)):
        return "constant", jnp.broadcast_to(value[:, 0], (n,))
    if value.ndim == 3 and shape[:2] in ((n, 1), (1, 1)):
        return "constant", jnp.broadcast_to(value[:, 0], (n, shape[2]))
    slip = shape == (n, n) and n > 1 and (n != t or pop.interpolation is None)
    if shape[:2] == (n, t) and value.ndim in (2, 3) and not slip:
        if pop.interpolation is None:
            raise ValueError(
                f"args[{name!r}] changes between records, because it is (subject, time) = {shape}, but no rule says "
                f"which value holds between two records. Name read_nonmem(interpolation='nocb') (NONMEM's rule), "
                f"'locf', 'midpoint' or 'linear'; or make it (subject, 1)."
            )
        return "varying", value
    hint = "Check how it was computed; pass anything that is not an array by subject in shared=."
    if slip:
        hint = "(subject, subject) comes from (subject, 1) meeting an array of shape (subject,): use `x[:, None]`."
    elif shape == (n,):
        hint = f"Use `{name}[:, None]`, for the record axis is the last one."
    raise ValueError(
        f"args[{name!r}] has shape {shape}, but an argument of the vector field must be (subject, 1) = ({n}, 1), "
        f"(subject, time) = ({n}, {t}) or (subject, 1, k), because it reaches the vector field as one subject's number "
        f"or vector. {hint}"
    )


def read_system(
    pop: Population,
    vector_field: VectorField,
    y0: Any,
    args: Any,
    shared: Any,
    doses: Mapping[Any, Any] | None,
    breaks: Any = None,
) -> System:
    """Return the system to solve, after checks; the user's function is traced once, for one subject."""
    states, start = read_states(pop, y0)
    arguments = read_arguments(pop, {} if args is None else args)
    numbers, place = _places(pop, states, doses)
    field = vector_field if shared is None else _with_shared(vector_field, shared)

    def single(t: Any, y: Array, rows: Rows) -> Array:
        state, given = states.unpack(y), arguments.gather(rows, t)
        out = _without_sites(field)(t, state, given)
        _check_derivative(states, out)
        return states.pack(out)

    example = jax.tree.map(lambda leaf: leaf[0], first_rows(pop, arguments, numbers))
    hoisted, consts = jax.closure_convert(single, start[0, 0], start[:, 0], example)
    at = read_breaks(pop, breaks)

    def whole(t: Any, y: Array, rows: Rows, consts: Any) -> Array:
        t = t if at is None else strictly_inside(t, rows.now)
        return hoisted(t, y, rows, *consts) + place @ rows.rate

    user = Field(_without_sites(field), states, start, arguments.at_first(), arguments.tree)
    # Where doses act through functions of time only, the states may start anew or be steady at a steady-state record:
    # those that only accumulate start anew.
    apart = doses is not None and not doses and pop.events.steady_states > 0
    cumulative = user.cumulative() if apart else None
    return System(
        single=whole,
        consts=consts,
        states=states,
        y0=start,
        arguments=arguments,
        numbers=numbers,
        place=place,
        user=user,
        breaks=at,
        cumulative=cumulative if cumulative is not None and cumulative.any() else None,
    )


def _without_sites(field: VectorField) -> VectorField:
    def refusing(t: Any, y: Any, args: Any) -> Any:
        with _NoSites(None):
            return field(t, y, args)

    return refusing


def first_rows(pop: Population, arguments: Arguments, numbers: tuple[int, ...]) -> Rows:
    """Return the arguments of all subjects at their first record."""
    times = jnp.asarray(pop.times)[:, 0] * 1.0
    value = [leaf[:, 0] for leaf in arguments.varying]
    linear = pop.interpolation == "linear"
    return Rows(
        constant=arguments.constant,
        value=value,
        slope=[0.0 * leaf for leaf in value] if linear else [],
        reference=times,
        now=times,
        segment=jnp.asarray(pop.segment)[:, 0],
        rate=jnp.zeros((pop.n_subjects, len(numbers))),
        forcings=arguments.forcings,
        transits=arguments.transits,
    )


def with_transits(system: System, pop: Population, doses: Mapping[Any, Any] | None, inputs: Any) -> System:
    """Return the system with the inputs of the doses that go through a transit chain added."""
    found = []
    for key, target in (doses or {}).items():
        if not isinstance(target, Transit):
            continue
        number = compartment_number(pop, "doses", key)
        if number not in pop.events.compartments:
            continue
        if number in pop.events.not_plain:
            raise ValueError(
                f"Doses into CMT {number} go through a transit chain, but some are infusions or steady states, and the "
                f"gamma form takes single boluses. Write the chain as states (transit(...).chain), or give the doses "
                f"one by one."
            )
        n, mtt = (
            jnp.broadcast_to(individual(pop, f"transit's {name}", value), (pop.n_subjects, 1))
            for name, value in (("n", target.n), ("mtt", target.mtt))
        )
        row = system.states.start(target.into)
        found.append(TransitInput(inputs, n, (n + 1.0) / mtt, number, row))
    if not found:
        return system
    arguments = dataclasses.replace(system.arguments, transits=found)

    def single(t: Any, y: Array, rows: Rows, consts: Any) -> Array:
        out = system.single(t, y, dataclasses.replace(rows, transits=[]), consts)
        for transit in rows.transits:
            out = out.at[transit.state].add(transit(t, rows.now, rows.segment))
        return out

    return dataclasses.replace(system, single=single, arguments=arguments)


def _with_shared(vector_field: VectorField, shared: Any) -> VectorField:
    """Return the vector field with what all subjects share merged into its arguments."""
    if not isinstance(shared, Mapping):
        raise ValueError(
            f"shared is a {type(shared).__name__}, but it is merged into args by name. Pass a dict, e.g. "
            f"shared={{'net': net}}."
        )

    def field(t: Any, y: Any, args: Any) -> Any:
        if not isinstance(args, Mapping):
            raise ValueError(f"args is a {type(args).__name__}, and shared= is merged into it by name. Make it a dict.")
        both = sorted(set(args) & set(shared))
        if both:
            raise ValueError(f"args and shared both have {both}. Give each name once.")
        return vector_field(t, y, {**args, **shared})

    return field


class _NoSites(Messenger):
    """A handler that refuses NumPyro sites in a vector field: they would be sampled at every stage of every step."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] in ("param", "sample", "deterministic", "mutable", "plate"):
            raise ModelError(
                f"Site '{msg['name']}' ({msg['type']}) stands inside the vector field, which runs at every stage of "
                f"every step. Call flax_module, param or sample above solve_ode, and use what it returns in the field."
            )


def _check_derivative(states: States, out: Any) -> None:
    """Refuse a derivative that does not have the structure and shapes of the state."""
    tree = jax.tree.structure(out)
    if tree != states.tree:
        raise ValueError(
            f"The vector field returned {tree}, but the state is {states.tree} with the names {list(states.names)}, "
            f"because a derivative has the structure of y0. Return one derivative for every state, in the same order."
        )
    for name, size, leaf in zip(states.names, states.sizes, jax.tree.leaves(out), strict=True):
        want = () if size is None else (size,)
        if jnp.shape(leaf) not in (want, (1,) if size is None else want):
            raise ValueError(
                f"The derivative of '{name}' has shape {jnp.shape(leaf)}, but the state of one subject has shape "
                f"{want}: the vector field is written for one subject, whose arguments are numbers (or vectors). "
                f"Take the single output of a network by `[0]`."
            )


def _places(pop: Population, states: States, doses: Mapping[Any, Any] | None) -> tuple[tuple[int, ...], Array]:
    """Return the dosed compartments, and the matrix that puts them into their states."""
    given = {1: "depot"} if doses is None else doses
    if not isinstance(given, Mapping):
        raise ValueError(
            f"doses is {given!r}, but must map compartments to states, e.g. doses={{1: {states.names[0]!r}}}."
        )
    targets = {compartment_number(pop, "doses", key): target for key, target in given.items()}
    for number, target in {} if doses is None else targets.items():
        _need_state(states, target.into if isinstance(target, Transit) else target, number, given)
    # The compartments that are dosed: there are none in a population without doses, even if ``events`` lists some.
    dosed = pop.events.compartments if pop.events.time.shape[1] else ()
    numbers = tuple(number for number in dosed if doses is None or len(given))
    place = jnp.zeros((states.total, len(numbers)))
    for column, number in enumerate(numbers):
        if number not in targets:
            raise ValueError(
                f"Doses go into CMT {number}, but doses={dict(given)} names no state for it. Add {number}: 'name of "
                f"a state'; the states are {list(states.names)}. If doses act through a forcing function only, pass "
                f"doses={{}}."
            )
        target = targets[number]
        if isinstance(target, Transit):
            _need_state(states, target.into, number, given)
            continue
        _need_state(states, target, number, given)
        place = place.at[states.start(target), column].set(1.0)
    return numbers, place


def _need_state(states: States, name: Any, number: int, given: Mapping[Any, Any]) -> None:
    if name not in states.names:
        raise ValueError(
            f"Doses into CMT {number} go to the state {name!r}, but the states are {list(states.names)}. Say which "
            f"one it is, e.g. doses={{{number}: {states.names[0]!r}}}."
        )
    if states.sizes[states.names.index(name)] not in (None, 1):
        raise ValueError(
            f"Doses into CMT {number} go to the state {name!r}, which is a vector. Make the dosed state one of its own."
        )
