"""Laplace's approximation and FOCE, which differ in the Hessian alone."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hierax.data.population import Population
from hierax.infer.blocks import Blocks, Vectors, log_det, value_gradient_hessian
from hierax.infer.marginal.curvature import fisher_hessian
from hierax.infer.marginal.estimator import Anchor, ModeEstimator, Params
from hierax.infer.marginal.modes import Newton
from hierax.infer.method import Commands
from hierax.infer.requirements import need_families, need_gaussian_data
from hierax.infer.search.options import QuasiNewton
from hierax.program.density import Program


class _Expansion(ModeEstimator):
    """−log L_i ≈ g_i(η̂) + ½ log|H_i| − d/2·log 2π."""

    def curvature(self, program: Program, pop: Population, params: Params, eta: Vectors) -> Blocks:
        """Return the Hessian blocks that the approximation uses."""
        raise NotImplementedError

    def negative_log_likelihood(
        self, program: Program, pop: Population, params: Params, anchor: Anchor
    ) -> Float[Array, " subject"]:
        """Return −log L_i; see :class:`Estimator`."""
        eta = self.implicit_modes(program, pop, params, anchor)
        half = 0.5 * log_det(self.curvature(program, pop, params, eta))
        value = self.joint(program, pop, params, eta) + half - 0.5 * eta.shape[-1] * np.log(2 * np.pi)
        return jnp.where(jnp.asarray(pop.subject_mask), value, 0.0)


@dataclasses.dataclass(frozen=True)
class Laplace(_Expansion):
    """Laplace's approximation with the full Hessian, for any observation model.

    Parameters
    ----------
    newton : Newton
        Options of the search for the modes.
    optimiser : QuasiNewton
        Options of the search over population parameters.

    Examples
    --------
    >>> hx.Laplace().label
    'Laplace, full Hessian'
    """

    newton: Newton = Newton()
    optimiser: QuasiNewton = QuasiNewton()
    commands: ClassVar[Commands] = {"laplace": {}}
    references: ClassVar[tuple[str, ...]] = ("wang2007",)

    @property
    def label(self) -> str:
        """Name of the approximation."""
        return "Laplace, full Hessian"

    @property
    def citation(self) -> str:
        """Where it is described."""
        return "Wang (2007), J Pharmacokinet Pharmacodyn 34:575, eq. 11-16"

    def curvature(self, program: Program, pop: Population, params: Params, eta: Vectors) -> Blocks:
        """Return the second derivatives of −log joint density."""
        return value_gradient_hessian(lambda e: self.joint(program, pop, params, e), eta)[2]


@dataclasses.dataclass(frozen=True)
class FOCE(_Expansion):
    """First-order conditional estimation: Laplace with the expected (Fisher) information of the data.

    Parameters
    ----------
    interaction : bool
        Whether the residual variance follows the random effects (FOCEI, the default). Without it the variance is
        frozen at their reference point (η = 0), in the density and in the Hessian.
    newton, optimiser
        As for :class:`Laplace`.

    Examples
    --------
    >>> hx.FOCE(interaction=False).label
    'FOCE without interaction'
    """

    interaction: bool = True
    newton: Newton = Newton()
    optimiser: QuasiNewton = QuasiNewton()
    commands: ClassVar[Commands] = {"foce": {}, "foce-no-interaction": {"interaction": False}}
    references: ClassVar[tuple[str, ...]] = ("lindstrom1990", "wang2007")

    @property
    def label(self) -> str:
        """Name of the approximation."""
        return "FOCE with interaction" if self.interaction else "FOCE without interaction"

    @property
    def citation(self) -> str:
        """Where it is described."""
        return "Lindstrom & Bates (1990), Biometrics 46:673; Wang (2007), J Pharmacokinet Pharmacodyn 34:575"

    def refusals(self, program: Program, pop: Population) -> list[str]:
        """Say which sites have no formula of the Fisher information."""
        if self.interaction:
            return need_families(program, pop, "FOCE")
        return need_gaussian_data(program, pop, "FOCE(interaction=False)")

    def joint(self, program: Program, pop: Population, params: Params, eta: Vectors) -> Float[Array, " subject"]:
        """Return −log joint density, with frozen residual scales where there is no interaction."""
        return -program.log_joint(pop, params, eta, self._frozen(program, pop, params))

    def curvature(self, program: Program, pop: Population, params: Params, eta: Vectors) -> Blocks:
        """Return the Fisher information of the data plus the Hessian of −log prior."""
        return fisher_hessian(program, pop, params, eta, self._frozen(program, pop, params))

    def _frozen(self, program: Program, pop: Population, params: Params) -> dict[str, Array] | None:
        return None if self.interaction else reference_scales(program, pop, params)


def reference_scales(program: Program, pop: Population, params: Params) -> dict[str, Array]:
    """Return the second parameter (scale) of every observed site at the reference point of the random effects."""
    run = program.run(pop, params, None)
    return {name: program.observed(run, name).parameters[1] for name in program.sites.data}  # type: ignore[union-attr]
