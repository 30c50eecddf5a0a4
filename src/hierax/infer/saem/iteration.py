"""One iteration of SAEM: simulation of random effects, averages of their moments, and maximisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from hierax.data.population import Population
from hierax.data.sanitise import sanitise
from hierax.infer.blocks import Blocks, Vectors
from hierax.infer.clipping import cut_outliers
from hierax.infer.saem.kernels import Landscape, begin, landscape, sweep
from hierax.infer.saem.mstep import (
    gradient_and_hessian,
    minimise_by_newton,
    newton_step,
    one_subject,
    prior_loss,
    shifted,
    solve_shift,
)
from hierax.infer.saem.roles import Roles
from hierax.infer.saem.state import FLOW, NEWTON, OPTIMISER, PRIOR, SHIFT, STEPS, Schedule, State, Trace
from hierax.program.density import Program
from hierax.program.parameters import is_weight

if TYPE_CHECKING:
    from hierax.infer.saem.saem import SAEM


def start(saem: SAEM, roles: Roles, flat: Array, eta: Vectors, chains: int, key: Any) -> State:
    """Return the state before the first iteration, chains at ``eta``."""
    n, d = eta.shape
    rest, weights = int((roles.rest & ~roles.optimised).sum()), int(roles.optimised.sum())
    optimiser = optimiser_of(saem).init(jnp.zeros(weights)) if weights else ()
    zero, blocks = jnp.zeros((n, d)), jnp.zeros((n, d, d))
    spread = begin(jnp.broadcast_to(eta, (chains, n, d)))
    return State(
        jnp.asarray(flat),
        spread,
        zero,
        blocks,
        zero,
        blocks,
        jnp.zeros((rest, rest)),
        optimiser,
        jax.random.key_data(key),
        jnp.zeros(len(STEPS), int),
    )


def optimiser_of(saem: SAEM) -> optax.GradientTransformation:
    """Return the optimiser of weights."""
    return saem.optimiser or optax.chain(cut_outliers(), optax.adam(1e-2))


def block(
    saem: SAEM, program: Program, roles: Roles, params_of: Callable[[Array], Any], penalty: Any
) -> Callable[[State, Schedule, Array, Population], tuple[State, Trace]]:
    """Return the function of a block of iterations, to be compiled: (state, schedule, design, pop) → state, trace."""

    def run(state: State, schedule: Schedule, design: Array, pop: Population) -> tuple[State, Trace]:
        clean = sanitise(pop)
        step = saem.iteration(saem, program, roles, params_of, penalty, clean, design)

        def body(state: State, now: Schedule) -> tuple[State, Trace]:
            quiet = Trace(state.flat, jnp.asarray(jnp.nan), state.chains.accepted)
            return jax.lax.cond(now.active, lambda s: step(s, now), lambda s: (s, quiet), state)

        return jax.lax.scan(body, state, schedule)

    return run


def _left_out(state: State, step: int, good: Array) -> State:
    """Count a step as left out, unless it was finite (``good``)."""
    return state._replace(skipped=state.skipped.at[step].add(~good))


class Iteration:
    """One iteration: simulate, average, maximise."""

    def __init__(
        self, saem: SAEM, program: Program, roles: Roles, params_of: Any, penalty: Any, pop: Population, design: Array
    ):
        self.saem, self.program, self.roles, self.params_of = saem, program, roles, params_of
        self.penalty, self.pop, self.design = penalty, pop, design
        self.real = jnp.asarray(pop.subject_mask)
        self.share = jnp.ones(())
        self.optimised = roles.optimised
        self.rest = roles.rest & ~self.optimised
        self.networks = {name for name, site in program.sites.population.items() if is_weight(program, site)}

    def __call__(self, state: State, now: Schedule) -> tuple[State, Trace]:
        """Return the state after the iteration, and what it shows."""
        key, now_key = jax.random.split(jax.random.wrap_key_data(state.key))
        state = state._replace(key=jax.random.key_data(key))
        params = self.params_of(state.flat)
        land = landscape(self.program, self.pop, params, state.centre, state.square)
        moved = sweep(
            lambda e: self.program.log_joint(self.pop, params, e),
            state.chains, land, now_key, self.saem.kernels, now.gain,
        )  # fmt: skip
        complete = jnp.mean(jnp.sum(moved.log_density, axis=-1))
        weights = jnp.full(moved.log_density.shape, 1 / len(moved.log_density))
        state = self.maximise(state._replace(chains=moved), land, weights, now)
        return state, Trace(state.flat, complete, moved.accepted)

    def maximise(self, state: State, land: Landscape, weights: Array, now: Schedule) -> State:
        """Average the moments of weighted random effects, (chain, subject), and maximise."""
        self.share = weights
        old = state.chains
        state = self._average(state, now)
        flat, eta, skipped = self._closed(state, land, now)
        flat = jnp.where(now.step > 0, flat, state.flat)
        eta = jnp.where(now.step > 0, eta, old.eta)
        state = state._replace(flat=flat, chains=old._replace(eta=eta), skipped=state.skipped + skipped)
        held = self._held(state)
        return self._carry(self._newton(self._optimise(state, held, now), held, now), held)

    def _held(self, state: State) -> dict[str, Array]:
        """Return the values of random effects behind flows, (chain, subject, ...).

        These values are the missing data, and not the flow's normal coordinates: with the coordinates held, a step of
        the flow's weights would move every subject's parameters away from what fits its data.
        """
        if not self.program.flows:
            return {}
        params = self.params_of(state.flat)
        return jax.vmap(lambda e: self.program.behind_flows(self.pop, params, e))(state.chains.eta)

    def _carry(self, state: State, held: dict[str, Array]) -> State:
        """Move the chains to the coordinates at which the flows give the held values again."""
        if not held:
            return state
        params, eta = self.params_of(state.flat), state.chains.eta
        moved = jax.vmap(lambda e, h: self.program.carried(self.pop, params, e, h)[0])(eta, held)
        good = jnp.isfinite(moved)
        state = _left_out(state, FLOW, good.all())
        return state._replace(chains=state.chains._replace(eta=jnp.where(good, moved, eta)))

    def _average(self, state: State, now: Schedule) -> State:
        eta = state.chains.eta
        phi = eta + shifted(self.design, state.flat[np.flatnonzero(self.roles.shift)])

        def toward(old: Array, new: Array, step: Any) -> Array:
            return old + step * (new - old)

        def square(x: Array) -> Array:
            return jnp.einsum("cn,cni,cnj->nij", self.share, x, x)

        def mean(x: Array) -> Array:
            return jnp.einsum("cn,cni->ni", self.share, x)

        learn = jnp.maximum(now.step * 0.1, 0.02)
        return state._replace(
            first=toward(state.first, mean(phi), now.step),
            second=toward(state.second, square(phi), now.step),
            centre=toward(state.centre, mean(eta), learn),
            square=toward(state.square, square(eta), learn),
        )

    def _closed(self, state: State, land: Landscape, now: Schedule) -> tuple[Array, Array, Array]:
        """Return flat vector and η after exact maximisation at fixed φ, and counts of the steps that were left out."""
        flat, eta, roles = state.flat, state.chains.eta, self.roles
        skipped = jnp.zeros_like(state.skipped)
        index = np.flatnonzero(roles.shift)
        if index.size:
            values = solve_shift(self.design, state.first - land.mean, land.root, self.real)
            good = jnp.isfinite(values).all()
            skipped = skipped.at[SHIFT].add(~good)
            values = jnp.where(good, values, flat[index])
            eta = eta + shifted(self.design, flat[index] - values)
            flat = flat.at[index].set(values)
        if not roles.prior.any():
            return flat, eta, skipped
        away = shifted(self.design, flat[index])
        first = state.first - away
        second = state.second - state.first[:, :, None] * away[:, None, :] - away[:, :, None] * first[:, None, :]
        second = self._annealed(second, first, land, now)
        pop = self.pop
        if roles.common:
            # All subjects have the same prior: one of them, with the mean moments, stands for all.
            count = jnp.sum(self.real)
            keep = self.real[:, None]
            first = (jnp.where(keep, first, 0.0).sum(0) / count)[None]
            second = (jnp.where(keep[..., None], second, 0.0).sum(0) / count)[None]
            pop = one_subject(self.pop)
        where = np.flatnonzero(roles.prior)

        def loss(values: Array) -> Array:
            return prior_loss(self.program, pop, self.params_of, flat.at[where].set(values), first, second)

        values = minimise_by_newton(loss, flat[where])
        good = jnp.isfinite(values).all()
        return flat.at[where].set(jnp.where(good, values, flat[where])), eta, skipped.at[PRIOR].add(~good)

    def _annealed(self, second: Blocks, first: Vectors, land: Landscape, now: Schedule) -> Blocks:
        """Return second moments that are raised so far that no variance falls faster than annealing allows."""
        old = jnp.einsum("nij,nij->ni", land.root, land.root)
        diagonal = jnp.diagonal(second, axis1=-2, axis2=-1) - 2 * first * land.mean + land.mean**2
        keep = self.real[:, None]
        goal = now.annealing * jnp.where(keep, old, 0.0).sum(0)
        missing = jnp.maximum(goal - jnp.where(keep, diagonal, 0.0).sum(0), 0.0) / jnp.sum(self.real)
        return second + jnp.diag(missing)

    def _loss(
        self, flat: Array, eta: Array, held: dict[str, Array], prior_alone: bool = False, still: Array | None = None
    ) -> Array:
        """Return the mean over chains of −log joint density, plus the penalty.

        With ``prior_alone`` the density is that of the random effects alone. If ``still`` is given, network weights are
        taken from this flat vector, so that no derivatives go through networks where none are wanted.
        """
        params = self.params_of(flat)
        if still is not None:
            kept = self.params_of(still)
            params = {name: kept[name] if name in self.networks else value for name, value in params.items()}

        def joint_of(eta: Vectors, held: dict[str, Array]) -> Array:
            return self.program.log_joint_of_values(self.pop, params, eta, held, prior_alone=prior_alone)

        joint = jax.vmap(joint_of)(eta, held)
        joint = jnp.where(self.real, joint, 0.0) * self.share
        return -jnp.sum(joint) + self.penalty(flat, self.pop)

    def _newton(self, state: State, held: dict[str, Array], now: Schedule) -> State:
        index = np.flatnonzero(self.rest)
        if not index.size:
            return state

        def loss(values: Array) -> Array:
            return self._loss(state.flat.at[index].set(values), state.chains.eta, held, still=state.flat)

        gradient, hessian = gradient_and_hessian(loss, state.flat[index])
        good = jnp.isfinite(gradient).all() & jnp.isfinite(hessian).all()
        gradient = jnp.where(good, gradient, 0.0)
        average = state.hessian + now.step * jnp.where(good, hessian - state.hessian, 0.0)
        step = now.step * newton_step(gradient, average, now.longest)
        good = good & jnp.isfinite(step).all()
        state = _left_out(state, NEWTON, good)
        return state._replace(flat=state.flat.at[index].add(-jnp.where(good, step, 0.0)), hessian=average)

    def _optimise(self, state: State, held: dict[str, Array], now: Schedule) -> State:
        index = np.flatnonzero(self.optimised)
        if not index.size:
            return state
        # If the data's density does not depend on the weights (`Roles.aloof`), the model is not solved for their steps.
        alone = self.roles.aloof and not (self.optimised & ~self.roles.weights).any()

        def loss(values: Array) -> Array:
            return self._loss(state.flat.at[index].set(values), state.chains.eta, held, alone)

        def update(carry: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], Array]:
            values, inner = carry
            gradient = jax.grad(loss)(values)
            good = jnp.isfinite(gradient).all()
            gradient = jnp.where(good, gradient, 0.0)
            updates, inner = optimiser_of(self.saem).update(gradient, inner, values)
            return (values + now.step * jnp.asarray(updates), inner), good

        start = state.flat[index], state.optimiser
        moved, good = jax.lax.scan(update, start, None, length=self.saem.updates)
        # An iteration counts as left out once, if none of its steps had a finite gradient.
        state = _left_out(state, OPTIMISER, good.any())
        values, inner = jax.tree.map(lambda new, old: jnp.where(now.step > 0, new, old), moved, start)
        flat = state.flat.at[index].set(values)
        return state._replace(flat=flat, optimiser=inner)
