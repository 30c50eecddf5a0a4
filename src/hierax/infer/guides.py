"""Variational distributions of each subject's random effects."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, Literal

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hierax.data.population import Population
from hierax.infer.blocks import Blocks, Vectors


class Guide(abc.ABC):
    """A family of distributions q_i(η), one member a subject.

    ``local`` says whether its parameters have a row a subject (and follow mini-batches), or are shared.
    """

    local: bool = True

    @abc.abstractmethod
    def begin(self, key: Any, pop: Population, mode: Vectors, root: Blocks) -> Any:
        """Return the first parameters; ``root`` are roots of the covariances around ``mode``."""

    @abc.abstractmethod
    def at(self, parameters: Any, pop: Population) -> Any:
        """Return what ``sample`` and ``log_density`` need for these subjects."""

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
    """A Gaussian of its own for every subject.

    Parameters
    ----------
    rank : {"full", "mean-field"}
        With or without correlations.
    """

    rank: Literal["full", "mean-field"] = "full"

    def __post_init__(self) -> None:
        if self.rank not in ("full", "mean-field"):
            raise ValueError(f"Normal(rank={self.rank!r}) is not known. Use 'full' or 'mean-field'.")

    def begin(self, key: Any, pop: Population, mode: Vectors, root: Blocks) -> Any:
        """Start at the modes, with the inverse Hessians."""
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
        white = jax.scipy.linalg.solve_triangular(member["factor"], (eta - member["loc"])[..., None], lower=True)[
            ..., 0
        ]
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
    """A Gaussian bent by a sinh-arcsinh flow in every coordinate of its own frame, for every subject.

    Skewness and tail weight are free: η = loc + L·sinh((asinh(ε) + skew)·tail), the Gaussian at skew 0, tail 1
    (Jones & Pewsey 2009).
    """

    def begin(self, key: Any, pop: Population, mode: Vectors, root: Blocks) -> Any:
        """Start at the Gaussian."""
        first = Normal().begin(key, pop, mode, root)
        return {**first, "skew": jnp.zeros_like(mode), "log_tail": jnp.zeros_like(mode)}

    def at(self, parameters: Any, pop: Population) -> Any:
        """Return the Gaussian's parts, skewness and tail."""
        return {**Normal().at(parameters, pop), "skew": parameters["skew"], "tail": jnp.exp(parameters["log_tail"])}

    def sample(self, member: Any, noise: Vectors) -> Vectors:
        """Return the bent and moved noise."""
        bent = jnp.sinh((jnp.arcsinh(noise) + member["skew"]) * member["tail"])
        return member["loc"] + jnp.einsum("nij,nj->ni", member["factor"], bent)

    def log_density(self, member: Any, eta: Vectors) -> Float[Array, " subject"]:
        """Return the log density by the change of variables."""
        white = jax.scipy.linalg.solve_triangular(member["factor"], (eta - member["loc"])[..., None], lower=True)[
            ..., 0
        ]
        inner = jnp.arcsinh(white) / member["tail"]
        noise = jnp.sinh(inner - member["skew"])
        slope = jnp.log(jnp.cosh(inner - member["skew"])) - 0.5 * jnp.log1p(white**2) - jnp.log(member["tail"])
        base = -0.5 * noise**2 - 0.5 * np.log(2 * np.pi)
        return jnp.sum(base + slope - member["log_scale"], -1)


class Encoder(linen.Module):
    """A set of records → location and factor of a Gaussian; any number of records, in any order.

    Every record is embedded with its time, values and covariates, then summed over what is observed: sums of many
    features of (time, value) are what a posterior of a regression depends on.
    """

    size: int
    width: int = 64
    depth: int = 2

    @linen.compact
    def __call__(
        self, features: Array, mask: Array, doses: Array, dose_mask: Array, static: Array
    ) -> tuple[Array, ...]:
        """Return (location, log scale, lower triangle), each a row a subject."""
        given = linen.Dense(self.width)(doses)
        given = jnp.sum(jnp.where(dose_mask[..., None], linen.silu(given), 0.0), axis=1)
        context = linen.silu(linen.Dense(self.width)(jnp.concatenate([given, static], axis=-1)))
        wide = jnp.broadcast_to(context[:, None, :], (*features.shape[:2], self.width))
        h = jnp.concatenate([features, wide], axis=-1)
        for _ in range(self.depth):
            h = linen.silu(linen.Dense(self.width)(h))
        count = jnp.sum(mask, axis=1, keepdims=True)
        pooled = jnp.sum(jnp.where(mask[..., None], h, 0.0), axis=1) / jnp.sqrt(jnp.maximum(count, 1.0))
        h = jnp.concatenate([pooled, context, jnp.log1p(count)], axis=-1)
        for _ in range(self.depth):
            h = linen.silu(linen.Dense(self.width)(h))
        small = linen.initializers.normal(1e-2)
        loc = linen.Dense(self.size, kernel_init=small)(h)
        log_scale = linen.Dense(self.size, kernel_init=small)(h)
        lower = linen.Dense(self.size * self.size, kernel_init=small)(h)
        return loc, log_scale, lower.reshape(-1, self.size, self.size)


@dataclasses.dataclass(frozen=True)
class Amortised(Guide):
    """A network that reads a subject's data and gives its Gaussian: works for subjects it was not fitted to.

    Parameters
    ----------
    width, depth : int
        Of the network's layers.
    module : flax module, optional
        A network of your own, called as :class:`Encoder` is.
    """

    width: int = 64
    depth: int = 2
    module: Any = None
    local: bool = dataclasses.field(default=False, init=False)

    def network(self, size: int) -> Any:
        """Return the network for so many random effects."""
        return self.module or Encoder(size, self.width, self.depth)

    def begin(self, key: Any, pop: Population, mode: Vectors, root: Blocks) -> Any:
        """Start at the mean of the modes, with their mean spread."""
        features = subject_features(pop)
        scale = jnp.sqrt(jnp.einsum("nij,nij->ni", root, root))
        real = jnp.asarray(pop.subject_mask)[:, None]
        count = jnp.sum(real)
        centre = jnp.where(real, mode, 0.0).sum(0) / count
        spread = jnp.where(real, jnp.log(scale), 0.0).sum(0) / count
        weights = self.network(mode.shape[-1]).init(key, **_standardised(features, standards(features)))
        weights = jax.tree.map(lambda leaf: jnp.asarray(leaf, mode.dtype), weights)
        return {"weights": weights, "centre": centre, "log_scale": spread, "standards": standards(features)}

    def at(self, parameters: Any, pop: Population) -> Any:
        """Run the network."""
        known = jax.lax.stop_gradient(parameters["standards"])
        inputs = _standardised(subject_features(pop), known)
        loc, log_scale, lower = self.network(len(parameters["centre"])).apply(parameters["weights"], **inputs)
        own = {"loc": parameters["centre"] + loc, "log_scale": parameters["log_scale"] + log_scale, "lower": lower}
        return Normal().at(own, pop)

    def sample(self, member: Any, noise: Vectors) -> Vectors:
        """Return location + factor · noise."""
        return Normal().sample(member, noise)

    def log_density(self, member: Any, eta: Vectors) -> Float[Array, " subject"]:
        """Return the Gaussian's log density."""
        return Normal().log_density(member, eta)

    def moments(self, member: Any, key: Any, size: tuple[int, int]) -> tuple[Vectors, Blocks]:
        """Return location and covariance."""
        return Normal().moments(member, key, size)


def subject_features(pop: Population) -> dict[str, Array]:
    """Return what a network sees of each subject: records, doses, constant covariates; masked."""
    times = jnp.asarray(pop.times)
    names = sorted(pop.dv)
    seen = [jnp.asarray(pop.mask[name]) for name in names]
    values = [jnp.where(mask, jnp.asarray(pop.dv[name]), 0.0) for name, mask in zip(names, seen, strict=True)]
    varying = [value for _, value in sorted(pop.covariates.items()) if value.ndim == 2 and value.shape[1] > 1]
    constant = [value.reshape(len(times), -1) for _, value in sorted(pop.covariates.items()) if value.shape[1] == 1]
    any_seen = jnp.any(jnp.stack(seen), axis=0) if seen else jnp.zeros(times.shape, bool)
    records = [times, *values, *[mask.astype(times.dtype) for mask in seen], *[jnp.asarray(v) for v in varying]]
    events = pop.events
    static = jnp.concatenate([jnp.asarray(c) for c in constant], -1) if constant else jnp.zeros((len(times), 0))
    return {
        "features": jnp.stack([jnp.where(any_seen, part, 0.0) for part in records], axis=-1),
        "mask": any_seen,
        "doses": jnp.stack([jnp.asarray(events.time), jnp.asarray(events.amount)], axis=-1),
        "dose_mask": jnp.asarray(events.mask),
        "static": static,
    }


def standards(features: dict[str, Array]) -> dict[str, tuple[Array, Array]]:
    """Return mean and SD of every input, over what is there."""

    def moments(values: Array, mask: Array) -> tuple[Array, Array]:
        weight = mask[..., None].astype(values.dtype)
        axes = tuple(range(values.ndim - 1))
        total = jnp.maximum(weight.sum(), 1.0)
        mean = (values * weight).sum(axes) / total
        variance = (weight * (values - mean) ** 2).sum(axes) / total
        return mean, jnp.where(variance > 0, jnp.sqrt(variance), 1.0)

    everyone = jnp.ones(features["static"].shape[0], bool)
    return {
        "features": moments(features["features"], features["mask"]),
        "doses": moments(features["doses"], features["dose_mask"]),
        "static": moments(features["static"], everyone),
    }


def _standardised(features: dict[str, Array], known: dict[str, tuple[Array, Array]]) -> dict[str, Array]:
    out = dict(features)
    for name, (mean, sd) in known.items():
        out[name] = (features[name] - mean) / sd
    return out
