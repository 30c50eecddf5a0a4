"""``hx.solve_ode``: a vector field of one subject, for a population with doses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpyro.primitives import _PYRO_STACK, apply_stack

from hierax.data.population import Population
from hierax.dynamics.arguments import compartment_number
from hierax.dynamics.forcing import Transit
from hierax.dynamics.grid import Grid
from hierax.dynamics.inputs import resolve
from hierax.dynamics.problem import Problem, Solution
from hierax.dynamics.system import VectorField, read_system, with_transits

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
        ``(t, y, args)`` → derivative, for one subject, as in diffrax: numbers in, numbers out.
    y0 : pytree
        Initial state at a subject's first record and after a reset, usually a dict of names. Leaves are numbers,
        ``(subject, 1)``, or ``(subject, 1, k)`` for a state that is a vector; they may depend on parameters.
    args : pytree
        Arguments of the vector field. Leaves are ``(subject, 1)``, which reach it as numbers; ``(subject, 1, k)``, as
        vectors; ``(subject, time)``, as the number that holds at t by the population's interpolation; or closed forms
        made with ``output="forcing"``, as functions of t.
    shared : dict, optional
        What all subjects share (networks, constants), merged into ``args``; it may also be closed over.
    doses : mapping, optional
        CMT (number or name) → name of the state that it is, or :func:`~hierax.transit` for a chain before one. By
        default ``{1: "depot"}``. ``{}`` lets doses act through forcing functions alone.
    lag, bioavailability, rate, duration : (subject, 1), (subject, time) or mapping, optional
        Parameters of doses, those of the dose record; a mapping gives them by compartment or by name of a state.
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
        Wrong shapes, a dose into an unknown state, a derivative that does not fit the state.
    ModelError
        A NumPyro site inside the vector field.

    Notes
    -----
    Derivatives of first and second order with respect to all parameters are exact for the discrete solution, also
    through the times of events. Steady states (SS) have the parameters of their record for ever before.

    Examples
    --------
    >>> def field(t, y, p):
    ...     return {"depot": -p["ka"] * y["depot"], "central": p["ka"] * y["depot"] - p["k"] * y["central"]}
    >>> states = hx.solve_ode(pop, field, {"depot": 0.0, "central": 0.0}, {"ka": ka, "k": k})  # doctest: +SKIP
    """
    if isinstance(solver, type) or not hasattr(solver, "states"):
        raise ValueError(
            f"solver is {solver!r}, but it is a Grid(), an Adaptive() or a MatrixExponential(). A solver of diffrax "
            f"goes into hx.Adaptive(solver)."
        )
    system = read_system(pop, vector_field, y0, args, shared, doses)
    parameters = {
        key: _by_state(pop, key, value, doses)
        for key, value in (("lag", lag), ("F", bioavailability), ("rate", rate), ("duration", duration))
    }
    inputs = resolve(pop, parameters["F"], parameters["lag"], parameters["rate"], parameters["duration"])
    system = with_transits(system, pop, doses, inputs)
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
    solution: Solution = apply_stack(message)["value"] if _PYRO_STACK else solver.solve(*message["args"])
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
                    f"{name} names {place!r}, which is no dosed state and no compartment: doses go into "
                    f"{list(named)}. Use one of these, or a CMT number."
                )
            compartment_number(pop, name, place)
            out[place] = part
    return out
