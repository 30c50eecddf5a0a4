"""The bound that variational inference maximises, and blocks of compiled steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from hierax.data.population import Population
from hierax.data.sanitise import sanitise
from hierax.infer.blocks import Blocks, Vectors
from hierax.infer.marginal.curvature import fisher_hessian
from hierax.infer.saem.mstep import shifted
from hierax.infer.vi import linked
from hierax.infer.vi.guide import Near
from hierax.program.density import Program

if TYPE_CHECKING:
    from hierax.infer.vi.vi import VI

# Number of optimiser steps that are compiled and run together; progress is judged and shown between two blocks.
BLOCK = 100


class State(NamedTuple):
    """The state of a run of VI between two steps.

    Attributes
    ----------
    population : dict
        ``loc`` of the free flat entries, and ``log_scale``, ``lower``, ``skew`` and ``log_tail`` of their guide.
    guide : pytree
        Parameters of the guides.
    moments : tuple
        Optimiser states of ``population`` and ``guide``; for a local guide, one state per subject.
    key : array
    """

    population: Any
    guide: Any
    moments: Any
    key: Any


class Setting(NamedTuple):
    """The static parts of a run.

    Guides are distributions of φ = η + A(θ − θ₀), where θ are the parameters that shift random effects (``shift``) and
    θ₀ their start values. The data's density at a given φ does not depend on θ, so that guides of φ can stay where they
    are when θ takes a step; guides of η would all have to follow it. ``pace`` holds a multiple of the learning rate for
    each free entry. ``linked`` are the free entries that the guides of random effects are conditional on.
    """

    vi: VI
    program: Program
    params_of: Callable[[Array], Any]
    penalty: Callable[[Array, Population], Array]
    free: np.ndarray
    shift: np.ndarray
    pace: np.ndarray
    linked: np.ndarray | None = None

    def paced(self) -> optax.GradientTransformation:
        """Return the transformation that scales gradients of the population parameters, ``pace`` included."""

        def slower(updates: Any, population: Any) -> Any:
            pace = jnp.asarray(self.pace)
            if population is not None and "log_scale" in population:
                # A parameter whose posterior SD is in the hundreds would not arrive by steps of the rate 0.02.
                pace = pace * jnp.maximum(jnp.exp(population["log_scale"]), 1.0)
            return {**updates, "loc": pace * updates["loc"]}

        return optax.chain(self.vi.scaler(), optax.stateless(slower))


def begin(setting: Setting, flat: Array, guide: Any, key: Any) -> State:
    """Return the state before the first step."""
    vi, free = setting.vi, np.flatnonzero(setting.free)
    population = {"loc": jnp.asarray(flat)[free]}
    if vi.population != "point":
        population["log_scale"] = jnp.full(len(free), -3.0)
    if vi.population == "full":
        population["lower"] = jnp.zeros((len(free), len(free)))
        population["skew"], population["log_tail"] = jnp.zeros((2, len(free)))
    scaler = vi.scaler()
    local = jax.vmap(scaler.init)(guide) if vi.guide.local else scaler.init(guide)
    return State(population, guide, (setting.paced().init(population), local), jax.random.key_data(key))


def place(setting: Setting, population: Any, flat: Array, noise: Array) -> Array:
    """Return the flat vector with the population parameters' point, or with a draw of their guide."""
    x = population["loc"]
    if "log_scale" in population:
        x = x + jnp.exp(population["log_scale"]) * standardised(population, noise)
    return jnp.asarray(flat).at[np.flatnonzero(setting.free)].set(x)


def standardised(population: Any, noise: Array) -> Array:
    """Return a draw of the population parameters' guide in units of its scales; it is 0 if ``noise`` is 0."""
    if "lower" not in population:
        return noise
    skew, tail = population["skew"], jnp.exp(population["log_tail"])
    bent = jnp.sinh((jnp.arcsinh(noise) + skew) * tail) - jnp.sinh(skew * tail)
    return bent + jnp.tril(population["lower"], -1) @ bent


def log_volume(population: Any, noise: Array) -> Array:
    """Return log |∂θ/∂noise| of a draw of the population parameters' guide; 0 if they are points."""
    if "log_scale" not in population:
        return jnp.zeros(())
    total = jnp.sum(population["log_scale"])
    if "lower" not in population:
        return total
    inner = (jnp.arcsinh(noise) + population["skew"]) * jnp.exp(population["log_tail"])
    return total + jnp.sum(jnp.log(jnp.cosh(inner)) + population["log_tail"] - 0.5 * jnp.log1p(noise**2))


def moved(setting: Setting, here: Array, flat: Array, design: Array) -> Vectors:
    """Return A(θ − θ₀), the difference φ − η, (subject, coordinate)."""
    index = np.flatnonzero(setting.shift)
    return shifted(design, here[index] - flat[index])


def members(setting: Setting, guide: Any, here: Array, away: Vectors, standard: Array, pop: Population) -> Any:
    """Return each subject's distribution of the guide for training, at the flat vector ``here``.

    ``away`` is φ − η (see :func:`moved`), and ``standard`` is ``here`` in units of its guide's scales.
    """
    if setting.linked is None:
        return setting.vi.guide.at(guide, pop)
    program, params = setting.program, setting.params_of(here)
    mean = program.reference(pop, params)
    root = program.prior_root(pop, params, mean)
    own = setting.vi.guide.at(guide["own"], pop)
    return linked.conditioned(own, guide, standard[setting.linked], mean + away, root)


def read(setting: Setting, guide: Any, here: Array, away: Vectors, standard: Array, pop: Population) -> Any:
    """Return the guide's members for results, which some guides refine, at the flat vector ``here``."""
    if not setting.vi.guide.refines:
        return members(setting, guide, here, away, standard, pop)
    guide = guide if setting.linked is None else guide["own"]
    program, params = setting.program, setting.params_of(here)
    near = Near(
        lambda phi: program.log_joint(pop, params, phi - away),
        lambda phi: fisher_hessian(program, pop, params, phi - away),
    )
    return setting.vi.guide.read(guide, pop, near)


def moments(
    setting: Setting, guide: Any, here: Array, flat: Array, design: Array, pop: Population, key: Any, refined: bool
) -> tuple[Vectors, Blocks]:
    """Return mean and covariance of every subject's random effects, by :func:`read` if ``refined``."""
    clean, away = sanitise(pop), moved(setting, here, flat, design)
    centre = jnp.zeros(int(setting.free.sum()))
    member = (read if refined else members)(setting, guide, here, away, centre, clean)
    size = len(setting.program.effect_names)
    mean, covariance = linked.moments(setting.vi.guide, member, key, (pop.n_subjects, size))
    return mean - away, covariance


def bound(
    setting: Setting,
    population: Any,
    guide: Any,
    flat: Array,
    pop: Population,
    design: Array,
    weight: Array,
    key: Any,
    member: Any = None,
) -> tuple[Array, Any, Any, Float[Array, " subject"]]:
    """Return the bound of the log likelihood, its gradients in population and guide, and the bound by subject.

    ``weight`` multiplies each subject's bound: 0 for padded subjects, and N/B in a batch of B out of N subjects.
    ``member`` are the guide's members, or a function that returns them; the default is :func:`members`.
    """
    vi, program = setting.vi, setting.program
    size, count = len(program.effect_names), pop.n_subjects
    noise_key, flat_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, (vi.samples, count, size))
    flat_noise = jax.random.normal(flat_key, population["loc"].shape)

    def at(population: Any, guide: Any) -> tuple[Any, Array, Vectors]:
        here = place(setting, population, flat, flat_noise)
        away = moved(setting, here, flat, design)
        if member is not None and not callable(member):
            return member, here, away
        standard = standardised(population, flat_noise)
        return (member or members)(setting, guide, here, away, standard, pop), here, away

    def draw(guide: Any, population: Any) -> Array:
        now = at(population, guide)[0]
        return jax.vmap(lambda z: linked.sample(vi.guide, now, z))(noise)

    def log_weights(phi: Array, population: Any, guide: Any) -> Array:
        now, here, away = at(population, guide)
        params = setting.params_of(here)
        joint = jax.vmap(lambda p: program.log_joint(pop, params, p - away))(phi)
        return joint - jax.vmap(lambda p: linked.log_density(vi.guide, now, p))(phi)

    eta, pull_draw = jax.vjp(draw, guide, population)
    logs, pull = jax.vjp(log_weights, eta, population, guide)
    logs = jnp.where(weight > 0, logs, 0.0)
    shares = jax.nn.softmax(logs, axis=0) * weight
    by_eta, by_population, by_guide = pull(shares)
    if setting.linked is not None:
        # Draws of linked guides move with the population parameters, whose gradient is the full one: through the
        # draws, and through the guides' density.
        by_population = jax.tree.map(jnp.add, by_population, pull_draw(by_eta)[1])
    if vi.gradient == "path":
        # The score of the guide's own parameters is left out: its mean is zero for K = 1, and for K > 1 squared weights
        # make up for it (Tucker et al. 2019).
        by_eta = by_eta * jax.nn.softmax(logs, axis=0)[..., None]
        by_guide = jax.tree.map(jnp.zeros_like, by_guide)
    by_draw = pull_draw(by_eta)[0]
    gradient = jax.tree.map(jnp.add, by_draw, by_guide)
    by_subject = jax.scipy.special.logsumexp(logs, axis=0) - jnp.log(float(vi.samples))

    def rest(population: Any) -> Array:
        # The entropy of the guide is the mean of its log volume, up to a constant.
        return log_volume(population, flat_noise) - setting.penalty(place(setting, population, flat, flat_noise), pop)

    more, slope = jax.value_and_grad(rest)(population)
    total = jnp.sum(by_subject * weight) + more
    return total, jax.tree.map(jnp.add, by_population, slope), gradient, by_subject


def block(setting: Setting) -> Callable[..., tuple[State, Array, Array]]:
    """Return the function that runs a block of steps, to be compiled.

    It takes (state, rates, rows, flat, design, pop) and returns the state, the bounds, and which steps had a finite
    gradient in the population parameters; a step without one leaves these parameters where they are. ``rows``
    (step, batch) are the subjects of each step; if it has no columns, every step takes all subjects.
    """
    vi = setting.vi
    scaler, paced = vi.scaler(), setting.paced()

    def run(
        state: State, rates: Array, rows: Array, flat: Array, design: Array, pop: Population
    ) -> tuple[State, Array, Array]:
        clean = sanitise(pop)
        whole = rows.shape[1] == 0
        real = jnp.asarray(pop.subject_mask)

        def step(state: State, now: tuple[Array, Array]) -> tuple[State, tuple[Array, Array]]:
            rate, chosen = now
            key, here = jax.random.split(jax.random.wrap_key_data(state.key))
            some = clean if whole else jax.tree.map(lambda leaf: jnp.asarray(leaf)[chosen], clean)
            pick = vi.guide.local and not whole
            guide, moments = (state.guide, state.moments[1])
            if pick:
                guide, moments = jax.tree.map(lambda leaf: leaf[chosen], (guide, moments))
            weight = real.astype(float) if whole else jnp.full(len(chosen), jnp.sum(real) / len(chosen))
            part = design if whole else design[:, chosen]
            outs = jax.vmap(lambda k: bound(setting, state.population, guide, flat, some, part, weight, k))(
                jax.random.split(here, vi.repetitions)
            )
            value, by_population, by_guide, _ = jax.tree.map(lambda leaf: leaf.mean(0), outs)
            population, first = _climb(paced, state.population, by_population, state.moments[0], rate)
            if vi.guide.local:
                fresh, second = jax.vmap(lambda g, s, m: _climb(scaler, g, s, m, rate))(guide, by_guide, moments)
            else:
                fresh, second = _climb(scaler, guide, by_guide, moments, rate)
            if pick:
                fresh, second = jax.tree.map(
                    lambda whole, part: whole.at[chosen].set(part), (state.guide, state.moments[1]), (fresh, second)
                )
            moved = State(population, fresh, (first, second), jax.random.key_data(key))
            return moved, (value, _finite(by_population))

        state, (bounds, good) = jax.lax.scan(step, state, (rates, rows))
        return state, bounds, good

    return run


def _finite(tree: Any) -> Array:
    """Return whether all numbers of a tree are finite."""
    return jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)], bool))


def _climb(
    scaler: optax.GradientTransformation, values: Any, gradient: Any, state: Any, rate: Array
) -> tuple[Any, Any]:
    """Return values and optimiser state after a step upwards; a gradient that is not finite changes neither."""
    good = _finite(gradient)
    safe = jax.tree.map(lambda leaf: jnp.where(good, leaf, 0.0), gradient)
    updates, new = scaler.update(safe, state, values)
    moved = jax.tree.map(lambda value, change: value + jnp.where(good, rate * change, 0.0), values, updates)
    return moved, jax.tree.map(lambda fresh, old: jnp.where(good, fresh, old), new, state)
