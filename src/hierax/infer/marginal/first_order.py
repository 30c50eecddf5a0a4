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
from hierax.infer.marginal.laplace import Laplace, reference_scales
from hierax.infer.marginal.modes import Newton
from hierax.infer.method import Commands
from hierax.infer.requirements import need_gaussian_data, need_gaussian_effects
from hierax.infer.result import Result
from hierax.infer.search.options import QuasiNewton
from hierax.program.density import Observed, Program


class _AtReference(Estimator):
    """Base of estimators that evaluate the model at the reference point of the random effects alone."""

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

    def post_hoc(self) -> Estimator:
        """Return Laplace's approximation, whose modes are the EBEs of a fit by FO."""
        return Laplace(newton=self.newton)

    def refusals(self, program: Program, pop: Population) -> list[str]:
        """Say which data sites and random effects are not Gaussian."""
        return need_gaussian_data(program, pop, "FO") + need_gaussian_effects(program, "FO")

    def negative_log_likelihood(
        self, program: Program, pop: Population, params: Params, anchor: Anchor
    ) -> Float[Array, " subject"]:
        """Return −log L_i of the linearised model, exactly, without its n x n covariance matrix.

        With whitened Jacobian V and residual r at the reference point, the linearised model's joint density is
        highest at δ = H⁻¹Vᵀr with H = Ω⁻¹ + VᵀV, and
        −log L = ½|r − Vδ|² + ½ δᵀΩ⁻¹δ + ½ log|H| − d/2 log 2π − (the logarithms of both densities' norming constants).
        It is a sum of squares, so that rounding cannot lower it where predictions are absurdly high.
        """
        eta = program.reference(pop, params)
        run = program.run(pop, params, eta)
        frozen = reference_scales(program, pop, params)
        prior = prior_hessian(program, pop, params, eta)
        rows = whitened_jacobian(program, pop, params, eta, frozen)
        seen = {name: one for name in rows if (one := program.observed(run, name)) is not None}
        residuals = {name: _residuals(one, pop) for name, one in seen.items()}
        blocks, slope = prior, jnp.zeros_like(eta)
        for name, row in rows.items():
            blocks = blocks + jnp.einsum("kne,lne->nkl", row, row)
            slope = slope + jnp.einsum("kne,ne->nk", row, residuals[name])
        shift = jnp.einsum("nkl,nl->nk", spd_inverse(blocks), slope)
        squares = jnp.einsum("nk,nkl,nl->n", shift, prior, shift)
        for name, row in rows.items():
            squares = squares + ((residuals[name] - jnp.einsum("kne,nk->ne", row, shift)) ** 2).sum(-1)
        located = {name: one.family.location_of(one.value) for name, one in seen.items()}
        norming = program.log_prior(pop, params, eta, run) + program.log_data(pop, run, frozen, located)
        value = 0.5 * squares + 0.5 * log_det(blocks) - 0.5 * eta.shape[-1] * np.log(2 * np.pi) - norming
        return jnp.where(jnp.asarray(pop.subject_mask), value, 0.0)


def _residuals(seen: Observed, pop: Population) -> Float[Array, "subject element"]:
    """Return the whitened residuals of an observed site; 0 where masked."""
    assert seen.family.residual is not None
    value = seen.family.residual(seen.parameters[:2], seen.value)
    value = value if seen.mask is None else jnp.where(seen.mask, value, 0.0)
    if seen.scale is not None:
        value = value * jnp.sqrt(seen.spread_scale(value.ndim))
    moved = jnp.moveaxis(value, seen.axis, 0)
    return moved.reshape(moved.shape[0], -1)


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
