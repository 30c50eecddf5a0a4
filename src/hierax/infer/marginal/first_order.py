"""Estimators without modes: FO and naive pooling."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hierax.data.population import Population
from hierax.infer.blocks import Vectors, log_det, spd_inverse
from hierax.infer.marginal.curvature import prior_hessian, whitened_jacobian
from hierax.infer.marginal.estimator import Anchor, Estimator, Params
from hierax.infer.marginal.laplace import reference_scales
from hierax.infer.marginal.modes import Newton
from hierax.infer.method import Commands
from hierax.infer.requirements import need_gaussian_data, need_gaussian_effects
from hierax.infer.result import Result
from hierax.infer.search.options import QuasiNewton
from hierax.program.density import Program


class _AtReference(Estimator):
    """Estimators that look at the random effects' reference point alone."""

    def anchor(self, program: Program, pop: Population, params: Params, eta: Vectors) -> Anchor:
        """Return the reference point; there is nothing to search."""
        reference = program.reference(pop, params)
        eye = jnp.broadcast_to(jnp.eye(reference.shape[-1]), (*reference.shape, reference.shape[-1]))
        code = jnp.full(reference.shape[0], Result.converged)
        return Anchor(reference, eye, code, jnp.array(0), jnp.zeros(reference.shape[0]))


@dataclasses.dataclass(frozen=True)
class FO(_AtReference):
    """First-order approximation: the model linearised in the random effects around their reference point.

    Parameters
    ----------
    newton : Newton
        Options of the search for the post-hoc modes.
    optimiser : QuasiNewton
        Options of the search over population parameters.

    Examples
    --------
    >>> hx.FO().label
    'FO'
    """

    newton: Newton = Newton()
    optimiser: QuasiNewton = QuasiNewton()
    post_hoc: ClassVar[bool] = True
    commands: ClassVar[Commands] = {"fo": {}}
    references: ClassVar[tuple[str, ...]] = ("sheiner1980",)

    @property
    def label(self) -> str:
        """Name of the approximation."""
        return "FO"

    @property
    def citation(self) -> str:
        """Where it is described."""
        return "Sheiner & Beal (1980), J Pharmacokinet Biopharm 8:553"

    def refusals(self, program: Program, pop: Population) -> list[str]:
        """Ask for Gaussian data and random effects."""
        return need_gaussian_data(program, pop, "FO") + need_gaussian_effects(program, "FO")

    def negative_log_likelihood(
        self, program: Program, pop: Population, params: Params, anchor: Anchor
    ) -> Float[Array, " subject"]:
        """Return −log L_i of the linearised model, exactly, without its n x n covariance matrix.

        With whitened Jacobian V and residual r at the reference point, H = Ω⁻¹ + VᵀV and
        −log L = −log p(y, η₀) − ½ (Vᵀr)ᵀ H⁻¹ (Vᵀr) + ½ log|H| − d/2 log 2π.
        """
        eta = program.reference(pop, params)
        frozen = reference_scales(program, pop, params)
        blocks = prior_hessian(program, pop, params, eta)
        slope = jnp.zeros_like(eta)
        residuals = _residuals(program, pop, params, eta)
        for name, rows in whitened_jacobian(program, pop, params, eta, frozen).items():
            blocks = blocks + jnp.einsum("kne,lne->nkl", rows, rows)
            slope = slope + jnp.einsum("kne,ne->nk", rows, residuals[name])
        explained = 0.5 * jnp.einsum("nk,nkl,nl->n", slope, spd_inverse(blocks), slope)
        joint = -program.log_joint(pop, params, eta)
        value = joint - explained + 0.5 * log_det(blocks) - 0.5 * eta.shape[-1] * np.log(2 * np.pi)
        return jnp.where(jnp.asarray(pop.subject_mask), value, 0.0)


def _residuals(program: Program, pop: Population, params: Params, eta: Vectors) -> dict[str, Array]:
    """Return the whitened residuals of every observed site, (subject, element); 0 where masked."""
    run = program.run(pop, params, eta)
    out = {}
    for name in program.sites.data:
        seen = program.observed(run, name)
        assert seen is not None
        assert seen.family.residual is not None
        value = seen.family.residual(seen.parameters[:2], seen.value)
        value = value if seen.mask is None else jnp.where(seen.mask, value, 0.0)
        if seen.scale is not None:
            value = value * jnp.sqrt(seen.spread_scale(value.ndim))
        moved = jnp.moveaxis(value, seen.axis, 0)
        out[name] = moved.reshape(moved.shape[0], -1)
    return out


@dataclasses.dataclass(frozen=True)
class NaivePooled(_AtReference):
    """Naive pooling: all random effects at their reference point, as if all subjects were one.

    Parameters that act through the random effects alone (their SDs) are not in this objective; the fit holds them
    at their start and says so.

    Examples
    --------
    >>> hx.NaivePooled().label
    'naive pooled'
    """

    newton: Newton = Newton()
    optimiser: QuasiNewton = QuasiNewton()
    has_modes: ClassVar[bool] = False
    commands: ClassVar[Commands] = {"pooled": {}}

    @property
    def label(self) -> str:
        """Name of the approximation."""
        return "naive pooled"

    def negative_log_likelihood(
        self, program: Program, pop: Population, params: Params, anchor: Anchor
    ) -> Float[Array, " subject"]:
        """Return −log density of the data at the reference point."""
        run = program.run(pop, params, program.reference(pop, params))
        return -program.log_data(pop, run)
