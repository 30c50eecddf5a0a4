"""Closed-form linear compartment models (``hx.pk``)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from hierax.data.population import Population
from hierax.dynamics.arguments import individual
from hierax.dynamics.exponentials import exp_difference, exp_integral


def one_compartment(
    pop: Population, *, CL: Any = None, V: Any = None, k: Any = None, ka: Any = None, F: Any = 1.0
) -> Float[Array, "subject time"]:
    """Concentration in one compartment at every record, by superposition of all doses.

    Parameters
    ----------
    pop : Population
        Times and doses. Without ``ka``, every dose goes to the central compartment (CMT 1). With ``ka``, CMT 1 is
        the depot and CMT 2 the central compartment. Doses are boluses or infusions (RATE > 0) into either.
    CL, k : (subject, 1)
        Clearance (volume/time) or elimination rate constant (1/time): one of the two.
    V : (subject, 1)
        Volume; the result is amount/volume.
    ka : (subject, 1), optional
        Absorption rate constant (1/time). ``ka = k`` is no special case: values and derivatives are smooth there.
    F : (subject, 1), optional
        Bioavailability: every amount is multiplied by it. With RATE > 0 the rate stands and the infusion lasts
        ``F·AMT/RATE``.

    Returns
    -------
    array, (subject, time)
        Concentration, in the units of AMT and V. At a dose record, the dose is included; an observation listed
        before a dose of the same time does not see it.

    Raises
    ------
    ValueError
        A parameter of another shape than ``(subject, 1)``, or not exactly one of ``CL`` and ``k``.
    """
    if (CL is None) == (k is None):
        raise ValueError("one_compartment needs exactly one of CL and k, because k = CL/V. Give one of them.")
    if V is None:
        raise ValueError("one_compartment needs V, because it returns a concentration. Give V=1.0 for amounts.")
    volume = individual(pop, "V", V)
    rate = individual(pop, "k", k) if CL is None else individual(pop, "CL", CL) / volume
    # From here on: (subject, time, dose).
    absorb = None if ka is None else individual(pop, "ka", ka)[..., None]
    amount = _superpose(pop, rate[..., None], absorb, individual(pop, "F", F)[..., None])
    return amount / volume


def _superpose(pop: Population, k: Array, ka: Array | None, available: Array) -> Float[Array, "subject time"]:
    """Sum the central amounts that all doses leave at every record."""
    dose = _doses(pop)
    elapsed = jnp.asarray(pop.times)[:, :, None] - dose["time"]
    listed = jnp.arange(pop.n_records)[None, :, None] >= dose["record"]
    given = dose["mask"] & ((elapsed > 0) | ((elapsed == 0) & listed))
    t = jnp.where(given, elapsed, 0.0)
    amount = jnp.where(dose["mask"], dose["amount"], 0.0) * available
    if pop.events.infusions:
        central = _infused(k, ka, t, amount, dose)
    else:
        central = _bolus(k, ka, t, amount, dose["compartment"])
    return jnp.where(given, central, 0.0).sum(-1)


def _doses(pop: Population) -> dict[str, Array]:
    """Return the doses as arrays of shape (subject, 1, dose)."""
    names = ("time", "amount", "rate", "compartment", "record", "mask")
    return {name: jnp.asarray(getattr(pop.events, name))[:, None, :] for name in names}


def _bolus(k: Array, ka: Array | None, t: Array, amount: Array, compartment: Array) -> Array:
    """Central amount after boluses, into the depot (CMT 1 where there is one) or the central compartment."""
    central = jnp.exp(-k * t)
    if ka is not None:
        central = jnp.where(compartment == 1, ka * exp_difference(ka, k, t), central)
    return amount * central


def _infused(k: Array, ka: Array | None, t: Array, amount: Array, dose: dict[str, Array]) -> Array:
    """Central amount after boluses and infusions."""
    rate, infused = dose["rate"], dose["rate"] > 0
    duration = jnp.where(infused, amount / jnp.where(infused, rate, 1.0), 0.0)
    running = jnp.minimum(t, duration)
    after = t - running
    central = rate * exp_integral(k, running) * jnp.exp(-k * after)
    if ka is not None:
        depot = rate * exp_integral(ka, running)
        reached = rate * (exp_integral(k, running) - exp_difference(ka, k, running))
        absorbed = reached * jnp.exp(-k * after) + depot * ka * exp_difference(ka, k, after)
        central = jnp.where(dose["compartment"] == 1, absorbed, central)
    return jnp.where(infused, central, _bolus(k, ka, t, amount, dose["compartment"]))
