"""Adaptive Gauss-Hermite quadrature."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hierax.data.population import Population
from hierax.infer.blocks import Blocks, Vectors, cholesky, log_det, spd_inverse, value_gradient_hessian
from hierax.infer.marginal.curvature import fisher_hessian
from hierax.infer.marginal.estimator import Anchor, ModeEstimator, Params
from hierax.infer.marginal.modes import Newton
from hierax.infer.method import Commands
from hierax.infer.requirements import need_families
from hierax.infer.search.options import QuasiNewton
from hierax.program.density import Program

# Nodes are taken in chunks of at most this many numbers (nodes × subjects × records), so that memory stays bounded at
# any number of nodes.
_CHUNK = 400_000


@dataclasses.dataclass(frozen=True)
class AGQ(ModeEstimator):
    """Adaptive Gauss-Hermite quadrature with ``n`` nodes per axis, centred and scaled at each subject's mode.

    Parameters
    ----------
    n : int
        Nodes per axis; nᵈ in all for the d random effects of a subject. 1 is Laplace's approximation.
    hessian : {"fisher", "full"}
        Which Hessian scales the nodes: FOCE's or Laplace's.
    newton, optimiser
        As for :class:`Laplace`.

    Examples
    --------
    >>> hx.AGQ(5).label
    'AGQ(5, fisher)'
    """

    n: int = 9
    hessian: Literal["fisher", "full"] = "fisher"
    newton: Newton = Newton()
    optimiser: QuasiNewton = QuasiNewton()
    commands: ClassVar[Commands] = {"agq": {"n": 9}}
    references: ClassVar[tuple[str, ...]] = ("pinheiro1995",)

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"AGQ(n={self.n}) must have 1 node or more. Use n = 1 (Laplace), 5, 9, ...")

    @property
    def label(self) -> str:
        """Name of the approximation."""
        return f"AGQ({self.n}, {self.hessian})"

    @property
    def citation(self) -> str:
        """Where it is described."""
        return "Pinheiro & Bates (1995), J Comput Graph Stat 4:12"

    def refusals(self, program: Program, pop: Population) -> list[str]:
        """Say which sites have no formula of the Fisher information, and when there would be too many nodes."""
        size = len(program.effect_names)
        found = need_families(program, pop, "AGQ(hessian='fisher')") if self.hessian == "fisher" else []
        found = [text.replace("Use Laplace()", "Use AGQ(hessian='full')") for text in found]
        if self.n**size > 10**7:
            found.append(
                f"AGQ({self.n}) needs {self.n}^{size} = {self.n**size:.1e} nodes a subject, because there are {size} "
                f"random effects. Use fewer nodes, or FOCE() or Laplace()."
            )
        return found

    def negative_log_likelihood(
        self, program: Program, pop: Population, params: Params, anchor: Anchor
    ) -> Float[Array, " subject"]:
        """Return −log L_i; see :class:`Estimator`."""
        eta = self.implicit_modes(program, pop, params, anchor)
        blocks = self._scaling(program, pop, params, eta)
        half_width = jnp.linalg.cholesky(spd_inverse(blocks)) if blocks.shape[-1] else blocks
        nodes, log_weights = grid(self.n, eta.shape[-1])

        def log_terms(node: Array, log_weight: Array) -> Float[Array, " subject"]:
            at = eta + np.sqrt(2) * half_width @ node
            return log_weight - self.joint(program, pop, params, at)

        total = _log_sum(log_terms, nodes, log_weights, pop.n_subjects * pop.n_records)
        value = -total + 0.5 * log_det(blocks) - 0.5 * eta.shape[-1] * np.log(2)
        return jnp.where(jnp.asarray(pop.subject_mask), value, 0.0)

    def _scaling(self, program: Program, pop: Population, params: Params, eta: Vectors) -> Blocks:
        if self.hessian == "fisher":
            return fisher_hessian(program, pop, params, eta)
        full = value_gradient_hessian(lambda e: self.joint(program, pop, params, e), eta)[2]
        return jnp.where(cholesky(full)[1][:, None, None], full, jnp.nan)


def grid(n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the tensor grid of Gauss-Hermite nodes, (node, coordinate), and the logs of their weights times e^{x²}."""
    x, w = np.polynomial.hermite.hermgauss(n)
    axes = np.meshgrid(*[x] * size, indexing="ij")
    logs = np.meshgrid(*[np.log(w) + x**2] * size, indexing="ij")
    nodes = np.stack([axis.ravel() for axis in axes], axis=-1) if size else np.zeros((1, 0))
    return nodes, sum((log.ravel() for log in logs), np.zeros(len(nodes)))


def _log_sum(
    log_terms: Callable[[Array, Array], Array], nodes: np.ndarray, log_weights: np.ndarray, width: int
) -> Array:
    """Return log Σ exp(log_terms(node, log_weight)) over all nodes, by subject, a chunk of nodes at a time.

    ``width`` is how many numbers one node takes (subjects × records). Nodes of weight 0 fill up the last chunk.
    """
    chunk = max(1, min(len(nodes), _CHUNK // max(width, 1)))
    count = -(-len(nodes) // chunk)
    short = count * chunk - len(nodes)
    padded = np.pad(nodes, [(0, short), (0, 0)]).reshape(count, chunk, -1)
    weights = np.pad(log_weights, (0, short), constant_values=-np.inf).reshape(count, chunk)

    def add(total: Array | None, part: tuple[Array, Array]) -> tuple[Array, None]:
        terms = jax.vmap(log_terms)(*part)
        here = jax.scipy.special.logsumexp(terms, axis=0)
        return (here if total is None else jnp.logaddexp(total, here)), None

    total, _ = add(None, (jnp.asarray(padded[0]), jnp.asarray(weights[0])))
    if count > 1:
        rest = (jnp.asarray(padded[1:]), jnp.asarray(weights[1:]))
        total, _ = jax.lax.scan(add, total, rest)
    return total
