"""The base of the estimators that approximate each subject's marginal likelihood."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hierax.data.population import Population
from hierax.infer.blocks import Blocks, PerSubject, Vectors, cholesky, solve_factored, value_and_gradient
from hierax.infer.marginal.modes import Modes, Newton, find_modes
from hierax.infer.method import Method
from hierax.infer.search.options import QuasiNewton
from hierax.program.density import Program

if TYPE_CHECKING:
    from hierax.infer.fitting.job import Job
    from hierax.infer.fitting.outcome import Outcome

Params = dict[str, Any]


# Where the random effects' distribution is a flow or a mixture, modes are sought by several searches (the first
# number). Some of them (the second) begin at the best of several random points (the third), which finds the way where
# the data say much. The others begin at a single point, because the best of several always lies in the widest basin.
# The fourth number is the SD of these points, in prior SDs.
_SEARCHES, _FROM_BEST, _TRIES, _WIDE = 5, 2, 8, 1.5


class Anchor(NamedTuple):
    """Where an approximation is anchored: the modes, held fixed while population parameters are differentiated.

    ``joint`` is −log density of data and random effects there, by which two modes of a subject are compared.
    """

    eta: Vectors
    hessian: Blocks
    code: Int[Array, " subject"]
    iterations: Int[Array, ""]
    joint: Float[Array, " subject"]


class Estimator(Method):
    """Base of the marginal-likelihood estimators."""

    newton: Newton
    optimiser: QuasiNewton
    # Whether a fit by this estimator has modes of the random effects.
    has_modes: ClassVar[bool] = True
    several_starts: ClassVar[bool] = True
    stops_early: ClassVar[bool] = True

    def run(self, job: Job) -> Outcome:
        """Maximise the approximation."""
        return job.maximise(self)

    def post_hoc(self) -> Estimator | None:
        """Return the approximation whose modes are found after the fit in place of this one's, or None."""
        return None

    @abc.abstractmethod
    def anchor(self, program: Program, pop: Population, params: Params, eta: Vectors) -> Anchor:
        """Find the modes from a warm start; derivatives are not taken through the search."""

    @abc.abstractmethod
    def negative_log_likelihood(
        self, program: Program, pop: Population, params: Params, anchor: Anchor
    ) -> Float[Array, " subject"]:
        """Return −log of each subject's marginal likelihood; differentiable in ``params`` through the modes."""


class ModeEstimator(Estimator):
    """Estimators that expand around each subject's mode."""

    def joint(self, program: Program, pop: Population, params: Params, eta: Vectors) -> Float[Array, " subject"]:
        """Return −log density of data and random effects: what the modes minimise."""
        return -program.log_joint(pop, params, eta)

    def anchor(self, program: Program, pop: Population, params: Params, eta: Vectors) -> Anchor:
        """Find the modes by Newton iterations from the warm start or the reference point, whichever is better.

        A subject may have several modes. Whether there is a better one than this is checked where a search over
        population parameters ends (``Session.better_modes``). Several modes are likely where the distribution of random
        effects is a flow or a mixture: without a warm start several searches then begin all over the prior.
        """
        reference = program.reference(pop, params)
        spread = program.prior_scale(pop, params, reference)
        # The SDs only limit the length of a step, so that one that is not finite may count as 0 (no step). A mode that
        # is not found for this reason is reported by its code.
        spread = jnp.where(jnp.isfinite(spread), spread, 0.0)

        def subset(rows: Int[Array, " row"]) -> PerSubject:
            part = pop[rows]
            return lambda e: self.joint(program, part, params, e)

        def joint(eta: Vectors) -> Float[Array, " subject"]:
            return self.joint(program, pop, params, eta)

        def search(start: Vectors) -> Modes:
            return find_modes(joint, (eta, start), self.newton, spread, subset)

        if any(site.warped for site in program.sites.effects.values()):
            modes = _searches(search, joint, reference, spread, jnp.isnan(eta).any())
        else:
            modes = search(reference)
        return Anchor(modes.eta, modes.hessian, modes.code, modes.iterations, modes.value)

    def implicit_modes(self, program: Program, pop: Population, params: Params, anchor: Anchor) -> Vectors:
        """Return the modes as functions of ``params``: one more Newton step with the Hessian held fixed.

        At a mode the step is zero, and its derivative −H⁻¹ ∂²f/∂η∂θ is that of the mode (implicit function theorem).
        """
        _, gradient = value_and_gradient(lambda e: self.joint(program, pop, params, e), anchor.eta)
        factor, definite = cholesky(anchor.hessian)
        step = jnp.where(definite[:, None], solve_factored(factor, gradient), 0.0)
        return anchor.eta - step


def _searches(
    search: Callable[[Vectors], Modes], joint: PerSubject, reference: Vectors, spread: Vectors, seek: Array
) -> Modes:
    """Return each subject's best mode of several searches if ``seek`` is true, else the mode of a single search.

    The searches run one after the other in a loop, so that the search is compiled once.
    """
    n, d = reference.shape
    normals = _WIDE * jax.random.normal(jax.random.key(0), (_SEARCHES, _TRIES, d))
    # The reference point is the first one of the first search.
    normals = normals.at[0, 0].set(0.0).at[_FROM_BEST:].set(normals[_FROM_BEST:, :1])

    def turn(carry: tuple[Array, Modes]) -> tuple[Array, Modes]:
        number, best = carry
        start = jax.lax.cond(seek, lambda: _lowest(joint, reference, spread, normals[number]), lambda: reference)
        found = search(start)
        better = (number == 0) | (found.value < best.value) | jnp.isnan(best.value)

        def merge(new: Array, old: Array) -> Array:
            return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        return number + 1, Modes(
            merge(found.eta, best.eta),
            merge(found.value, best.value),
            merge(found.hessian, best.hessian),
            merge(found.code, best.code),
            best.iterations + found.iterations,
        )

    none = Modes(reference, jnp.full(n, jnp.inf), jnp.zeros((n, d, d)), jnp.zeros(n, int), jnp.array(0))
    turns = jnp.where(seek, _SEARCHES, 1)
    return jax.lax.while_loop(lambda carry: carry[0] < turns, turn, (jnp.array(0), none))[1]


def _lowest(joint: PerSubject, reference: Vectors, spread: Vectors, normals: Float[Array, "try coordinate"]) -> Vectors:
    """Return each subject's best of some points around the reference point, tried one by one to save memory."""

    def compare(best: tuple[Vectors, Array], normal: Array) -> tuple[tuple[Vectors, Array], None]:
        tried = reference + spread * normal
        found = joint(tried)
        lower = found < best[1]
        return (jnp.where(lower[:, None], tried, best[0]), jnp.where(lower, found, best[1])), None

    return jax.lax.scan(compare, (reference, jnp.full(len(reference), jnp.inf)), normals)[0][0]


def scores(
    estimator: Estimator, program: Program, pop: Population, params_of: Any, flat: Array, anchor: Anchor
) -> tuple[Float[Array, " subject"], Float[Array, "parameter subject"]]:
    """Return −log L_i and its gradients, by forward passes over the parameters."""

    def value(vector: Array) -> Array:
        return estimator.negative_log_likelihood(program, pop, params_of(vector), anchor)

    def push(seed: Array) -> tuple[Array, Array]:
        return jax.jvp(value, (flat,), (seed,))

    seeds = jnp.eye(flat.shape[0], dtype=flat.dtype)
    width = pop.n_subjects * pop.n_records * max(anchor.eta.shape[-1], 1)
    chunk = max(1, FAT_LIMIT // max(width, 1))
    if chunk >= flat.shape[0]:
        return jax.vmap(push, out_axes=(None, 0))(seeds)
    values, tangents = jax.lax.map(push, seeds, batch_size=chunk if chunk > 1 else None)
    return values[0], tangents


# While the arrays of a forward pass over all parameters have no more numbers than this, one pass serves all of them.
# Beyond it each pass takes as many parameters as fit, which keeps memory proportional to the data.
FAT_LIMIT = 200_000
