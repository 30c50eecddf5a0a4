"""Known functions of time inside a vector field: closed forms, and transit absorption."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hierax.dynamics.doses.inputs import Inputs
from hierax.dynamics.linear.disposition import Micro
from hierax.dynamics.linear.responses import time_doses
from hierax.dynamics.linear.superposition import on_last_axis, superpose_at


@dataclasses.dataclass(frozen=True)
class Forcing:
    """A closed-form concentration as a function of time, for use inside a vector field.

    Made by ``pk.one_compartment(..., output="forcing")``, or the models of two and three compartments, and passed in
    ``args`` of :func:`~hierax.solve_ode`. It reaches the vector field as a function: ``args["conc"](t)`` is one
    subject's concentration at time t, all its doses superposed.

    Attributes
    ----------
    inputs : Inputs
        The doses, arrays (subject, dose).
    micro : Micro
        Rate constants, (subject, 1).
    ka : array or None
        Absorption rate constant, (subject, 1).
    volume : array
        Central volume, (subject, 1).
    now, segment : array, (subject,)
        A time inside the step that is being taken, and its segment of the history; the solver sets them. The doses that
        have arrived by ``now`` act in the whole step, so that both of its ends have the same doses.
    sources : tuple of (CMT, state)
        The dosed compartments.
    """

    inputs: Inputs
    micro: Micro
    ka: Any
    volume: Any
    now: Any = None
    segment: Any = None
    sources: tuple[tuple[int, int], ...] = ()

    def at(self, now: Array, segment: Array) -> Forcing:
        """Return the same function for the step around the time ``now``."""
        return dataclasses.replace(self, now=now, segment=segment)

    def __call__(self, t: Any) -> Float[Array, ""]:
        """Return one subject's concentration at time ``t``."""
        if self.now is None:
            raise ValueError(
                "A closed form with output='forcing' is a function of time inside a vector field. Pass it in args= of "
                "hx.solve_ode, and call it there: args['conc'](t)."
            )
        one = jax.tree.map(lambda leaf: leaf[None], self)
        dose = on_last_axis(one.inputs)
        acts = acting(dose, one.now, one.segment)
        times = jnp.reshape(t, (1, 1, 1)) * jnp.ones(())
        time = time_doses(dose, times, acts, jnp.reshape(one.now, (1, 1, 1)))
        amount = superpose_at(dict(self.sources), one.micro, one.ka, dose, time, acts, (0,))[0]
        return (amount / one.volume)[0, 0]


def acting(dose: Inputs, now: Array, segment: Array) -> Array:
    """Return which doses, given as arrays (subject, 1, dose), have arrived by the time ``now``."""
    at = now[:, None, None]
    arrived = jnp.where(dose.periodic | dose.constant, dose.time, dose.arrival) <= at
    return jax.lax.stop_gradient(arrived) & (segment[:, None, None] == dose.segment) & dose.mask


jax.tree_util.register_dataclass(
    Forcing, data_fields=["inputs", "micro", "ka", "volume", "now", "segment"], meta_fields=["sources"]
)


@dataclasses.dataclass(frozen=True)
class Transit:
    """Absorption through a chain of transit compartments: a dose reaches a state after a gamma-distributed delay.

    Made by :func:`transit`, and given as a value of ``doses=`` of :func:`~hierax.solve_ode`.
    """

    n: Any
    mtt: Any
    into: str = "depot"

    def chain(self, inflow: Any, stages: Any) -> Array:
        """Return the derivative of the stages of a chain that is fed by any signal, for use in a vector field.

        This is a distributed delay: the outflow of the last stage is the signal, delayed by ``mtt`` on average.
        Here ``n`` must be the number of stages, and ``mtt`` the subject's own.

        Parameters
        ----------
        inflow : scalar
            What enters the first stage, per time.
        stages : array, (stage,)
            Amounts in the stages; outflow of the last is ``n / mtt * stages[-1]``.
        """
        stages = jnp.asarray(stages)
        rate = stages.shape[0] / self.mtt
        before = jnp.concatenate([jnp.reshape(inflow, (1,)), rate * stages[:-1]])
        return before - rate * stages


def transit(n: Any, mtt: Any, into: str = "depot") -> Transit:
    """Return an absorption through transit compartments, whose number may be estimated: the form of Savic et al.

    A dose D reaches the state ``into`` at the rate D·k (k t)ⁿ exp(−k t)/Γ(n + 1), with k = (n + 1)/mtt and t the time
    since its arrival. For a whole number n this is a chain of n transit compartments between the dosed one and
    ``into``, with equal rate constants.

    Parameters
    ----------
    n : scalar, (subject, 1)
        Number of transit compartments, any real number ≥ 0. For a chain that is written as states, see
        ``Transit.chain``.
    mtt : scalar, (subject, 1)
        Mean transit time.
    into : str
        The state that is reached.

    Returns
    -------
    Transit
        For ``doses=`` of :func:`hierax.solve_ode`.

    References
    ----------
    Savic, Jonker, Kerbusch & Karlsson (2007), J Pharmacokinet Pharmacodyn 34:711.

    Examples
    --------
    >>> hx.solve_ode(pop, field, y0, args, doses={1: hx.transit(n=2.5, mtt=1.2, into="depot")})  # doctest: +SKIP
    """
    return Transit(n, mtt, into)


@dataclasses.dataclass(frozen=True)
class TransitInput:
    """The doses that go through a transit chain, for the vector field; subjects are the first axis of arrays."""

    inputs: Inputs
    n: Any
    rate: Any
    number: int
    state: int

    def __call__(self, t: Any, now: Array, segment: Array) -> Float[Array, ""]:
        """Return one subject's input rate at ``t``."""
        one = jax.tree.map(lambda leaf: leaf[None], self)
        dose = on_last_axis(one.inputs)
        acts = acting(dose, now[None], segment[None]) & (dose.compartment == self.number)
        elapsed = jnp.where(acts, jnp.reshape(t, (1, 1, 1)) - dose.arrival, 1.0)
        n, k = one.n[..., None], one.rate[..., None]
        # At the very time of arrival the input is 0, except for n = 0. It is set here, because log 0 would make it NaN.
        begun = elapsed > 0
        x = k * jnp.where(begun, elapsed, 1.0)
        density = k * jnp.exp(n * jnp.log(x) - x - jax.lax.lgamma(n + 1.0))
        density = jnp.where(begun, density, jnp.where(n == 0, k, 0.0))
        return jnp.where(acts, dose.amount * density, 0.0).sum()


jax.tree_util.register_dataclass(TransitInput, data_fields=["inputs", "n", "rate"], meta_fields=["number", "state"])
