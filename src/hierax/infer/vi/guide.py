"""Variational distributions of each subject's random effects."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hierax.data.population import Population
from hierax.infer.blocks import Blocks, Vectors
from hierax.options import Options
from hierax.program.density import Program


class Near(NamedTuple):
    """The model's densities as functions of the random effects, at fixed population parameters.

    ``joint(φ)`` is the log joint density of every subject, ``information(φ)`` the Fisher information of its data plus
    the curvature of its prior, (subject, coordinate, coordinate).
    """

    joint: Callable[[Vectors], Float[Array, " subject"]]
    information: Callable[[Vectors], Blocks]


class Guide(Options, abc.ABC):
    """A family of distributions q_i(η), with one member per subject.

    ``local`` says whether its parameters have one row per subject (of which a step takes those of its mini-batch), or
    are shared by all subjects.

    Examples
    --------
    >>> isinstance(hx.guides.Normal(), hx.guides.Guide)
    True
    """

    local: bool = True

    @property
    def refines(self) -> bool:
        """Whether ``read`` gives other members than ``at``."""
        return False

    @abc.abstractmethod
    def begin(self, key: Any, pop: Population, mode: Vectors, root: Blocks) -> Any:
        """Return the first parameters; ``root`` are roots of the covariances around ``mode``."""

    @abc.abstractmethod
    def at(self, parameters: Any, pop: Population) -> Any:
        """Return the members of these subjects, which ``sample`` and ``log_density`` take."""

    def read(self, parameters: Any, pop: Population, near: Near) -> Any:
        """Return the members for results (EBEs, bounds, draws) and not for training; by default those of ``at``."""
        return self.at(parameters, pop)

    def refusals(self, program: Program, pop: Population) -> list[str]:
        """Say why this guide cannot be used for a program's random effects; empty if it can."""
        return []

    @abc.abstractmethod
    def sample(self, member: Any, noise: Vectors) -> Vectors:
        """Return random effects from standard normal numbers, (subject, coordinate)."""

    @abc.abstractmethod
    def log_density(self, member: Any, eta: Vectors) -> Float[Array, " subject"]:
        """Return log q_i(η_i)."""

    def moments(self, member: Any, key: Any, size: tuple[int, int]) -> tuple[Vectors, Blocks]:
        """Return mean and covariance of each subject."""
        draws = jax.vmap(lambda k: self.sample(member, jax.random.normal(k, size)))(jax.random.split(key, 256))
        mean = draws.mean(0)
        centred = draws - mean
        return mean, jnp.einsum("mni,mnj->nij", centred, centred) / (len(draws) - 1)


@dataclasses.dataclass(frozen=True)
class Normal(Guide):
    """A separate Gaussian for every subject.

    Parameters
    ----------
    rank : {"full", "mean-field"}
        With or without correlations between the random effects of a subject.

    Examples
    --------
    >>> hx.VI(hx.guides.Normal('mean-field')).guide.rank
    'mean-field'
    """

    rank: Literal["full", "mean-field"] = "full"

    def begin(self, key: Any, pop: Population, mode: Vectors, root: Blocks) -> Any:
        """Return Gaussians at the modes, whose spread is that of the inverse Hessians there."""
        factor = jnp.linalg.cholesky(jnp.einsum("nij,nkj->nik", root, root))
        good = jnp.isfinite(factor).all((-1, -2))[:, None, None]
        factor = jnp.where(good, factor, jnp.eye(mode.shape[-1]))
        diagonal = jnp.diagonal(factor, axis1=-2, axis2=-1)
        if self.rank == "mean-field":
            precision = jnp.einsum("nji,nkj->nik", factor, factor)
            return {"loc": mode, "log_scale": 0.5 * jnp.log(jnp.diagonal(precision, axis1=-2, axis2=-1))}
        return {"loc": mode, "log_scale": jnp.log(diagonal), "lower": jnp.tril(factor / diagonal[:, None, :], -1)}

    def at(self, parameters: Any, pop: Population) -> Any:
        """Return location and lower factor."""
        scale = jnp.exp(parameters["log_scale"])
        size = scale.shape[-1]
        unit = jnp.broadcast_to(jnp.eye(size), (*scale.shape, size))
        if "lower" in parameters:
            unit = unit + jnp.tril(parameters["lower"], -1)
        return {"loc": parameters["loc"], "factor": unit * scale[:, None, :], "log_scale": parameters["log_scale"]}

    def sample(self, member: Any, noise: Vectors) -> Vectors:
        """Return location + factor · noise."""
        return member["loc"] + jnp.einsum("nij,nj->ni", member["factor"], noise)

    def log_density(self, member: Any, eta: Vectors) -> Float[Array, " subject"]:
        """Return the Gaussian's log density."""
        white = _whitened(member, eta)
        constant = 0.5 * eta.shape[-1] * np.log(2 * np.pi)
        return -0.5 * jnp.sum(white**2, -1) - jnp.sum(member["log_scale"], -1) - constant

    def moments(self, member: Any, key: Any, size: tuple[int, int]) -> tuple[Vectors, Blocks]:
        """Return location and covariance."""
        return member["loc"], jnp.einsum("nij,nkj->nik", member["factor"], member["factor"])


def _whitened(member: Any, eta: Vectors) -> Vectors:
    right = (eta - member["loc"])[..., None]
    return jax.scipy.linalg.solve_triangular(member["factor"], right, lower=True)[..., 0]


@dataclasses.dataclass(frozen=True)
class Sinh(Guide):
    """A Gaussian for every subject, to which sinh-arcsinh flows give skewness and heavier or lighter tails.

    The flow changes each standard normal coordinate ε before it is multiplied by L: η = loc + L·sinh((asinh(ε) +
    skew)·tail), which is the Gaussian at skew 0 and tail 1 (Jones & Pewsey 2009).

    Examples
    --------
    >>> hx.VI(hx.guides.Sinh()).guide
    Sinh()
    """

    def begin(self, key: Any, pop: Population, mode: Vectors, root: Blocks) -> Any:
        """Return the first parameters of :class:`Normal`, with skew 0 and tail 1."""
        first = Normal().begin(key, pop, mode, root)
        return {**first, "skew": jnp.zeros_like(mode), "log_tail": jnp.zeros_like(mode)}

    def at(self, parameters: Any, pop: Population) -> Any:
        """Return the Gaussian's parts, skewness and tail."""
        return {**Normal().at(parameters, pop), "skew": parameters["skew"], "tail": jnp.exp(parameters["log_tail"])}

    def sample(self, member: Any, noise: Vectors) -> Vectors:
        """Return location + factor · the noise after the flow."""
        bent = jnp.sinh((jnp.arcsinh(noise) + member["skew"]) * member["tail"])
        return member["loc"] + jnp.einsum("nij,nj->ni", member["factor"], bent)

    def log_density(self, member: Any, eta: Vectors) -> Float[Array, " subject"]:
        """Return the log density by the change of variables."""
        white = _whitened(member, eta)
        inner = jnp.arcsinh(white) / member["tail"]
        noise = jnp.sinh(inner - member["skew"])
        slope = jnp.log(jnp.cosh(inner - member["skew"])) - 0.5 * jnp.log1p(white**2) - jnp.log(member["tail"])
        base = -0.5 * noise**2 - 0.5 * np.log(2 * np.pi)
        return jnp.sum(base + slope - member["log_scale"], -1)
