"""``hx.solve_ode``: a vector field of one subject, for a population with doses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from numpyro.primitives import apply_stack

from hierax.data.population import Population
from hierax.dynamics.doses.arguments import compartment_number
from hierax.dynamics.doses.dose_notes import dose_notes
from hierax.dynamics.doses.inputs import resolve
from hierax.dynamics.linear.forcing import Transit
from hierax.dynamics.notes import tell
from hierax.dynamics.ode.field import field_notes
from hierax.dynamics.ode.grid import Grid
from hierax.dynamics.ode.problem import Problem, Solution
from hierax.dynamics.ode.system import VectorField, read_system, with_transits
from hierax.privately import handlers_in_force

# Type of the NumPyro message of a solve, by which handlers recognise it.
MESSAGE = "ode"
_GRID = Grid()


def solve_ode(
    pop: Population,
    vector_field: VectorField,
    y0: Any,
    args: Any = None,
    *,
    shared: Mapping[str, Any] | None = None,
    doses: Mapping[Any, Any] | None = None,
    lag: Any = None,
    bioavailability: Any = None,
    rate: Any = None,
    duration: Any = None,
    breaks: Any = None,
    solver: Any = _GRID,
    name: str = "ode",
) -> Any:
    """Solve an ODE of one subject for a whole population, with all its doses.

    Parameters
    ----------
    pop : Population
        Times and doses. All of the dosing language acts on the states: boluses and infusions, modelled rates and
        durations, lag, bioavailability, resets, steady states.
    vector_field : callable
        ``(t, y, args)`` → derivative, for one subject, as in diffrax: numbers in, numbers out. A field that jumps at a
        known time needs ``breaks``.
    y0 : pytree
        Initial state at a subject's first record and after a reset, usually a dict of names. Leaves are numbers,
        ``(subject, 1)``, or ``(subject, 1, k)`` for a state that is a vector; they may depend on parameters.
    args : pytree
        Arguments of the vector field. Leaves are ``(subject, 1)``, which reach it as numbers; ``(subject, 1, k)``, as
        vectors; ``(subject, time)``, as the number that holds at t by the population's interpolation; or closed forms
        made with ``output="forcing"``, as functions of t.
    shared : dict, optional
        What all subjects share (networks, constants), merged into ``args``. The vector field may also close over it.
    doses : mapping, optional
        CMT (number or name) → name of the state that it is, or :func:`~hierax.transit` for a chain before a state. By
        default ``{1: "depot"}``. ``{}`` lets doses act through forcing functions alone.
    lag, bioavailability, rate, duration : (subject, 1), (subject, time) or mapping, optional
        Parameters of doses, with their values at the dose record; a mapping gives them by compartment or by name of a
        state. A parameter that no dose uses does nothing, so that one program serves several regimens.
    breaks : (k,) or (subject, k), optional
        Times at which the vector field jumps: a switch, a meal, the end of an effect that is timed from a dose. Steps
        end there, and no step evaluates the field on the other side, so that the solution stays accurate, and exactly
        differentiable, also in the times. One axis: the same times for all subjects. Two: those of each subject, NaN
        where it has fewer. A field that compares ``t`` with something is warned about, because it may jump; give ``()``
        if it does not.
    solver : Grid, Adaptive or MatrixExponential
        How to solve; by default ``Grid()``.
    name : str
        Name of the solve, if a program has several.

    Returns
    -------
    pytree
        The states at every record, in the structure of ``y0``: ``(subject, time)``, or ``(subject, time, k)``. At a
        dose record the dose is included. NaN for a subject whose solve failed; the fit says which, when and why.

    Raises
    ------
    ValueError
        If shapes are wrong, a dose goes into an unknown state, a derivative does not fit the state, ``solver`` is no
        solver, or JAX is in float32.
    ModelError
        If there is a NumPyro site inside the vector field.

    Notes
    -----
    Derivatives of first and second order with respect to all parameters are exact for the discrete solution, also
    through the times of events. A steady state (SS) is computed as if the parameters of its record had always held.

    Under a vector field that reads ``t``, the steady state is computed as if all dosing intervals were like the one
    after the SS record: ``t`` runs from the record's time to II later, again and again. If the field has another period
    (a 24 h rhythm and II = 12), a regimen that has always run leads to another state; a warning says so.

    A state that only accumulates (an AUC) has no steady state. Solve it in a second ``solve_ode`` for the same
    population, with ``doses={}`` and the concentration passed in ``args`` as a closed form (``output="forcing"``). At
    an SS record, a state in that call on which no derivative depends starts anew at ``y0``; every other state takes its
    steady state under the forcing.

    Examples
    --------
    >>> def field(t, y, p):
    ...     return {"depot": -p["ka"] * y["depot"], "central": p["ka"] * y["depot"] - p["k"] * y["central"]}
    >>> states = hx.solve_ode(pop, field, {"depot": 0.0, "central": 0.0}, {"ka": ka, "k": k})  # doctest: +SKIP
    """
    if isinstance(solver, type) or not hasattr(solver, "states"):
        raise ValueError(
            f"solver is {solver!r}, but must be a Grid(), an Adaptive() or a MatrixExponential(). Pass a solver of "
            f"diffrax as hx.Adaptive(solver)."
        )
    if jnp.result_type(float) != jnp.float64:
        raise ValueError(
            "solve_ode needs float64, and JAX is in float32, where no step is short enough and every state would be "
            "NaN. Call numpyro.enable_x64() before anything else."
        )
    system = read_system(pop, vector_field, y0, args, shared, doses, breaks)
    parameters = {
        key: _by_state(pop, key, value, doses)
        for key, value in (("lag", lag), ("F", bioavailability), ("rate", rate), ("duration", duration))
    }
    inputs = resolve(pop, parameters["F"], parameters["lag"], parameters["rate"], parameters["duration"])
    system = with_transits(system, pop, doses, inputs)
    given = {"lag": parameters["lag"], "bioavailability": parameters["F"]}
    given |= {"rate": parameters["rate"], "duration": parameters["duration"]}
    tell(pop, lambda: dose_notes(pop, inputs, given))
    tell(pop, lambda: field_notes(name, system.user, inputs, isinstance(solver, Grid) and breaks is None))
    problem = Problem(pop, system, inputs)
    message = {
        "type": MESSAGE,
        "name": name,
        "fn": solver.solve,
        "args": (problem, pop.grids.get(name)),
        "kwargs": {},
        "value": None,
        "solver": solver,
    }
    solution: Solution = apply_stack(message)["value"] if handlers_in_force() else solver.solve(*message["args"])
    return solution.states


def _by_state(pop: Population, name: str, value: Any, doses: Mapping[Any, Any] | None) -> Any:
    """Translate names of states in a mapping of dose parameters into compartments."""
    if not isinstance(value, Mapping):
        return value
    named: dict[Any, list[Any]] = {}
    for key, target in ({1: "depot"} if doses is None else doses).items():
        named.setdefault(target.into if isinstance(target, Transit) else target, []).append(key)
    known = dict(pop.compartment_names)
    out = {}
    for key, part in value.items():
        places = named[key] if key in named and key not in known else [key]
        for place in places:
            if isinstance(place, str) and place not in known:
                raise ValueError(
                    f"{name} names {place!r}, which is neither a dosed state nor a compartment: doses go into "
                    f"{list(named)}. Use one of these, or a CMT number."
                )
            compartment_number(pop, name, place)
            out[place] = part
    return out
