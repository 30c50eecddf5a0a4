"""Closed-form linear compartment models (``hx.pk``)."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array

from hierax.data.population import Population
from hierax.dynamics.doses.arguments import individual, structural
from hierax.dynamics.doses.dose_notes import dose_notes
from hierax.dynamics.doses.inputs import Inputs, resolve
from hierax.dynamics.linear.disposition import Micro
from hierax.dynamics.linear.forcing import Forcing
from hierax.dynamics.linear.propagation import propagate
from hierax.dynamics.linear.superposition import sources_of, superpose
from hierax.dynamics.notes import tell

Output = Literal["concentration", "amount", "concentrations", "amounts", "forcing"]
# With up to this many doses per subject, the amounts at each record are the sum over all doses (superposition); with
# more, amounts are carried along the records and doses in order (propagation). Both give the same numbers, and with
# this many doses they take about the same time.
SUPERPOSED_DOSES = 3


class _Structure(NamedTuple):
    """The parameters of a model: rate constants, volumes by compartment, absorption."""

    micro: Micro
    volumes: tuple[Array, ...]
    ka: Array | None


def one_compartment(
    pop: Population,
    *,
    CL: Any = None,
    V: Any = None,
    k: Any = None,
    ka: Any = None,
    Tk0: Any = None,
    F: Any = None,
    lag: Any = None,
    rate: Any = None,
    duration: Any = None,
    output: Output = "concentration",
) -> Any:
    """Return concentrations or amounts of a one-compartment model at every record, for all doses.

    Parameters
    ----------
    pop : Population
        Times and doses. Without ``ka``, CMT 1 is the central compartment. With ``ka``, CMT 1 is the depot and CMT 2
        the central compartment. Doses are boluses or infusions into any of them, single or at steady state.
    CL, k : (subject, 1) or (subject, time)
        Clearance (volume/time) or elimination rate constant (1/time): one of the two.
    V : (subject, 1) or (subject, time)
        Volume; concentrations are amount/volume.
    ka : (subject, 1) or (subject, time), optional
        Absorption rate constant (1/time). It may equal ``k``: values and derivatives are smooth there.
    Tk0 : (subject, 1), optional
        Duration of a zero-order absorption: every bolus into CMT 1 is absorbed at a constant rate over this time.
    F : (subject, 1), (subject, time) or mapping, optional
        Bioavailability, by which every amount is multiplied. Where the rate of an infusion is given, it changes the
        duration; where the duration is given, the rate. A mapping gives it by compartment (number or name).
    lag : as F, optional
        Lag time of doses. A steady state with a lag is that of a regimen that has always run, each dose a lag late;
        with a lag longer than II that differs from NONMEM, and a warning says so.
    rate, duration : as F, optional
        Rate and duration of infusions with RATE -1 and -2. A parameter that no dose uses does nothing, so that one
        program serves several regimens; ``hx.check`` says so.
    output : {"concentration", "amount", "concentrations", "amounts", "forcing"}
        The central compartment's concentration or amount; or a dict of all compartments, ``depot`` (as an amount),
        ``central``, ``peripheral1``, ``peripheral2``; or the central concentration as a function of time, for the
        ``args`` of :func:`~hierax.solve_ode`.

    Returns
    -------
    array, (subject, time), or dict of such
        In the units of AMT (and V). At a dose record, the dose is included; an observation listed before a dose of
        the same time does not include it.

    Raises
    ------
    ValueError
        If a parameter has another shape, too few or too many of them are given, or a dose goes into a compartment that
        the model does not have.

    Notes
    -----
    A parameter ``(subject, time)`` holds between records by the population's interpolation (``nocb``, ``locf`` or
    ``midpoint``), also across additional doses and ends of infusions. F, lag, rate and duration are those of the dose
    record. A steady state is computed as if the parameters of its record had always held. With many doses, or
    parameters that change, the doses of a steady state that are still on their way or running at its record are
    followed one by one, up to eleven of them (more where the data's own infusions overlap). With a lag or a modelled
    duration that spans more intervals the result is NaN.

    Examples
    --------
    >>> doses = hx.Population.from_grid(hx.Regimen(100), [1.0], n=1)
    >>> conc = hx.pk.one_compartment(doses, CL=3.0 * jnp.ones((1, 1)), V=20.0 * jnp.ones((1, 1)))
    >>> round(float(conc[0, -1]), 4)
    4.3035
    """
    given = _given(pop, "one_compartment", CL=CL, V=V, k=k, ka=ka)
    volume = _need(given, "one_compartment", "V")
    structure = _Structure(Micro(_elimination(given, "one_compartment", volume)), (volume,), given.get("ka"))
    return _solve(pop, "one_compartment", structure, Tk0, F, lag, rate, duration, output)


def two_compartment(
    pop: Population,
    *,
    CL: Any = None,
    V1: Any = None,
    Q: Any = None,
    V2: Any = None,
    k: Any = None,
    k12: Any = None,
    k21: Any = None,
    ka: Any = None,
    Tk0: Any = None,
    F: Any = None,
    lag: Any = None,
    rate: Any = None,
    duration: Any = None,
    output: Output = "concentration",
) -> Any:
    """Return concentrations or amounts of a two-compartment model at every record, for all doses.

    Parameters
    ----------
    pop : Population
        Times and doses. Compartments are numbered central, peripheral; with ``ka`` depot, central, peripheral.
    CL, V1, Q, V2 : (subject, 1) or (subject, time)
        Clearance, central volume, intercompartmental clearance, peripheral volume. V1 is always needed.
    k, k12, k21 : (subject, 1) or (subject, time)
        Rate constants of elimination, to the peripheral compartment, and back. ``k`` may stand in place of CL, and
        ``k12`` with ``k21`` in place of Q with V2, each independently; the peripheral volume is then V1 · k12 / k21.
    ka, Tk0, F, lag, rate, duration, output
        As for :func:`one_compartment`.

    Returns
    -------
    array, (subject, time), or dict of such
        As for :func:`one_compartment`.

    Raises
    ------
    ValueError
        As for :func:`one_compartment`.

    Examples
    --------
    >>> doses = hx.Population.from_grid(hx.Regimen(100), [1.0], n=1)
    >>> one = jnp.ones((1, 1))
    >>> hx.pk.two_compartment(doses, CL=3 * one, V1=20 * one, Q=2 * one, V2=30 * one).shape
    (1, 2)
    """
    name = "two_compartment"
    given = _given(pop, name, CL=CL, V1=V1, Q=Q, V2=V2, k=k, k12=k12, k21=k21, ka=ka)
    volume = _need(given, name, "V1")
    exchange, second = _exchange(given, name, volume, ("Q", "V2"), ("k12", "k21"))
    micro = Micro(_elimination(given, name, volume), (exchange,))
    structure = _Structure(micro, (volume, second), given.get("ka"))
    return _solve(pop, name, structure, Tk0, F, lag, rate, duration, output)


def three_compartment(
    pop: Population,
    *,
    CL: Any = None,
    V1: Any = None,
    Q2: Any = None,
    V2: Any = None,
    Q3: Any = None,
    V3: Any = None,
    k: Any = None,
    k12: Any = None,
    k21: Any = None,
    k13: Any = None,
    k31: Any = None,
    ka: Any = None,
    Tk0: Any = None,
    F: Any = None,
    lag: Any = None,
    rate: Any = None,
    duration: Any = None,
    output: Output = "concentration",
) -> Any:
    """Return concentrations or amounts of a three-compartment model at every record, for all doses.

    Parameters
    ----------
    pop : Population
        Times and doses. Compartments are numbered central, peripheral 1, peripheral 2; with ``ka`` the depot is
        the first.
    CL, V1, Q2, V2, Q3, V3 : (subject, 1) or (subject, time)
        Clearance, central volume, and intercompartmental clearance and volume of each peripheral compartment. V1 is
        always needed.
    k, k12, k21, k13, k31 : (subject, 1) or (subject, time)
        Rate constants of elimination, to each peripheral compartment, and back. ``k`` may stand in place of CL, ``k12``
        with ``k21`` in place of Q2 with V2, and ``k13`` with ``k31`` in place of Q3 with V3, each independently.
    ka, Tk0, F, lag, rate, duration, output
        As for :func:`one_compartment`.

    Returns
    -------
    array, (subject, time), or dict of such
        As for :func:`one_compartment`.

    Raises
    ------
    ValueError
        As for :func:`one_compartment`.

    Examples
    --------
    >>> doses = hx.Population.from_grid(hx.Regimen(100), [1.0], n=1)
    >>> one = jnp.ones((1, 1))
    >>> rates = {'k': 0.2 * one, 'k12': 0.1 * one, 'k21': 0.3 * one, 'k13': 0.05 * one, 'k31': 0.02 * one}
    >>> hx.pk.three_compartment(doses, V1=20 * one, **rates).shape
    (1, 2)
    """
    name = "three_compartment"
    given = _given(pop, name, CL=CL, V1=V1, Q2=Q2, V2=V2, Q3=Q3, V3=V3, k=k, k12=k12, k21=k21, k13=k13, k31=k31, ka=ka)
    volume = _need(given, name, "V1")
    first, second = _exchange(given, name, volume, ("Q2", "V2"), ("k12", "k21"))
    other, third = _exchange(given, name, volume, ("Q3", "V3"), ("k13", "k31"))
    micro = Micro(_elimination(given, name, volume), (first, other))
    structure = _Structure(micro, (volume, second, third), given.get("ka"))
    return _solve(pop, name, structure, Tk0, F, lag, rate, duration, output)


def _given(pop: Population, model: str, **parameters: Any) -> dict[str, Array]:
    """Return those parameters that were given, after a check of their shapes."""
    return {name: structural(pop, name, value) for name, value in parameters.items() if value is not None}


def _need(given: dict[str, Array], model: str, name: str) -> Array:
    if name not in given:
        raise ValueError(f"{model} needs {name}, because it returns a concentration. Give {name}=1.0 for amounts.")
    return given[name]


def _elimination(given: dict[str, Array], model: str, volume: Array) -> Array:
    if ("CL" in given) == ("k" in given):
        raise ValueError(f"{model} needs exactly one of CL and k, because k is CL over the volume. Give one of them.")
    return given["k"] if "k" in given else given["CL"] / volume


def _exchange(
    given: dict[str, Array], model: str, volume: Array, clearances: tuple[str, str], constants: tuple[str, str]
) -> tuple[tuple[Array, Array], Array]:
    """Return the rate constants of exchange with a peripheral compartment, and its volume."""
    by_clearance = [name for name in clearances if name in given]
    by_constant = [name for name in constants if name in given]
    if len(by_clearance) == 2 and not by_constant:
        flow, other = given[clearances[0]], given[clearances[1]]
        return (flow / volume, flow / other), other
    if len(by_constant) == 2 and not by_clearance:
        out, back = given[constants[0]], given[constants[1]]
        return (out, back), volume * out / back
    raise ValueError(
        f"{model} needs {' and '.join(clearances)}, or {' and '.join(constants)}, because either pair defines the "
        f"exchange with a peripheral compartment. It got {by_clearance + by_constant}."
    )


def _solve(
    pop: Population,
    model: str,
    structure: _Structure,
    Tk0: Any,
    F: Any,
    lag: Any,
    rate: Any,
    duration: Any,
    output: Output,
) -> Any:
    """Return the output that was asked for, by superposition or by propagation."""
    micro, volumes, ka = structure
    names = (["depot"] if ka is not None else []) + ["central", "peripheral1", "peripheral2"][: len(volumes)]
    _check_doses(pop, model, names)
    if output not in get_args(Output):
        raise ValueError(
            f"output={output!r} must be one of 'concentration', 'amount' (central compartment), 'concentrations', "
            f"'amounts' (all compartments), 'forcing' (a function of time for hx.solve_ode)."
        )
    if Tk0 is not None and ka is not None:
        raise ValueError(f"{model} has both ka and Tk0, but absorption is of first or of zero order. Give one of them.")
    inputs = resolve(pop, F, lag, rate, duration, None if Tk0 is None else individual(pop, "Tk0", Tk0))
    given = {"F": F, "lag": lag, "rate": rate, "duration": duration, "Tk0": Tk0}
    tell(pop, lambda: dose_notes(pop, inputs, given))
    constant = all(leaf.shape[1] == 1 for leaf in (micro.k, *sum(micro.exchange, ()), *([] if ka is None else [ka])))
    if output == "forcing":
        return _forcing(pop, model, structure, inputs, constant)
    every = output in ("concentrations", "amounts")
    states = [name_state for name_state in range(-1 if ka is not None else 0, len(volumes))] if every else [0]
    few = pop.events.time.shape[1] <= SUPERPOSED_DOSES
    method = superpose if constant and few else propagate
    if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((pop, micro, ka, inputs))):
        # Called directly, the method would run operation by operation, and JAX would compile some 70 small functions
        # for every shape of the data.
        method = _COMPILED[method]
    amounts = method(pop, micro, ka, inputs, tuple(states))
    if output in ("concentration", "concentrations"):
        amounts = {s: a / volumes[s] if s >= 0 else a for s, a in amounts.items()}
    if not every:
        return amounts[0]
    labels = {-1: "depot", 0: "central", 1: "peripheral1", 2: "peripheral2"}
    return {labels[state]: amounts[state] for state in states}


# The two methods, each compiled as a whole, for calls outside of compiled functions.
_COMPILED = {method: jax.jit(method, static_argnums=4) for method in (superpose, propagate)}


def _forcing(pop: Population, model: str, structure: _Structure, inputs: Inputs, constant: bool) -> Forcing:
    """Return the central concentration as a function of time."""
    if not constant or structure.volumes[0].shape[1] > 1:
        raise ValueError(
            f"{model} with output='forcing' has parameters that change from record to record, but a closed form by "
            f"superposition needs constant ones. Write these compartments as states of hx.solve_ode."
        )

    def by_subject(leaf: Array) -> Array:
        return jnp.broadcast_to(leaf, (pop.n_subjects, 1))

    micro, ka = jax.tree.map(by_subject, (structure.micro, structure.ka))
    sources = tuple(sources_of(pop, ka).items())
    return Forcing(inputs, micro, ka, by_subject(structure.volumes[0]), sources=sources)


def _check_doses(pop: Population, model: str, names: list[str]) -> None:
    """Refuse doses into compartments that the model does not have."""
    unknown = [number for number in pop.events.compartments if number > len(names)]
    if unknown:
        have = {number + 1: name for number, name in enumerate(names)}
        raise ValueError(
            f"Doses go into CMT {unknown}, but this {model} has the compartments {have}. Correct CMT in the data, or "
            f"use a model that has them" + (" (with ka, CMT 1 is the depot)." if "depot" not in names else ".")
        )
