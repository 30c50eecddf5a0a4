"""The guide that reads a subject's data: an encoder network."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hierax.arguments import whole
from hierax.data.population import Population
from hierax.infer.blocks import Blocks, Vectors, cholesky, inverse_factored, solve_factored, value_and_gradient
from hierax.infer.marginal.modes import lowest
from hierax.infer.requirements import need_families
from hierax.infer.vi.guide import Guide, Near, Normal
from hierax.program.density import Program

# Fractions of a Fisher scoring step that are tried for each subject. The one with the highest density is taken; 0 is
# no step.
_STEP_FRACTIONS = (1.0, 0.5, 0.25, 0.1, 0.03, 0.0)


class Encoder(linen.Module):
    """A network from a set of records, of any number and in any order, to the location and factor of a Gaussian.

    Every record is embedded with its time, values and covariates, and the embeddings of observed records are summed,
    because the posterior of a regression depends on the data through sums of features of (time, value).

    Examples
    --------
    >>> hx.guides.Encoder(size=2).size
    2
    """

    size: int
    width: int = 64
    depth: int = 2

    @linen.compact
    def __call__(
        self, features: Array, mask: Array, doses: Array, dose_mask: Array, static: Array
    ) -> tuple[Array, ...]:
        """Return location, log scale and lower triangle of the Gaussians, each with one row per subject."""
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
    """A network that computes a subject's Gaussian from its data, also for subjects that were not in the fit.

    Parameters
    ----------
    width, depth : int
        Width of the network's layers, and their number both before and after records are summed.
    refine : int
        Number of Fisher scoring steps on the subject's own density that follow the network's answer when results are
        computed (``encode``, ``bounds``, EBEs). The location is then close to the mode, and the covariance the inverse
        information there. A network trained on some hundreds of subjects is wrong by several posterior SDs for some
        others; four steps correct that, at the cost of a derivative of the model each. With 0 the network's answer is
        used as it is. Training never takes these steps.
    module : flax module, optional
        A network of your own, called as :class:`Encoder` is.

    Notes
    -----
    Kingma & Welling (2014); on steps that follow the network's answer: Kim, Wiseman, Miller, Sontag & Rush (2018).

    Examples
    --------
    >>> hx.VI(hx.guides.Amortised(width=32)).guide.width
    32
    """

    width: int = 64
    depth: int = 2
    refine: int = 4
    module: Any = None
    local: bool = dataclasses.field(default=False, init=False)

    def __post_init__(self) -> None:
        whole("width", self.width, 1)
        whole("depth", self.depth, 1)

    @property
    def refines(self) -> bool:
        """Whether scoring steps follow the network's answer when results are computed."""
        return self.refine > 0

    def network(self, size: int) -> Any:
        """Return the network for ``size`` random effects."""
        return self.module or Encoder(size, self.width, self.depth)

    def begin(self, key: Any, pop: Population, mode: Vectors, root: Blocks) -> Any:
        """Return a new network's weights, to start from the mean of all subjects' modes and their mean log SD."""
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
        """Return each subject's Gaussian by the network alone."""
        known = jax.lax.stop_gradient(parameters["standards"])
        inputs = _standardised(subject_features(pop), known)
        loc, log_scale, lower = self.network(len(parameters["centre"])).apply(parameters["weights"], **inputs)
        own = {"loc": parameters["centre"] + loc, "log_scale": parameters["log_scale"] + log_scale, "lower": lower}
        return Normal().at(own, pop)

    def read(self, parameters: Any, pop: Population, near: Near) -> Any:
        """Return each subject's Gaussian for results: the network's answer, moved to the mode by scoring steps.

        The covariance is the inverse information where the steps end, or the identity where that is not positive
        definite. With ``refine=0`` it is the network's own Gaussian.
        """
        own = self.at(parameters, pop)
        if not self.refine:
            return own
        # For a subject unlike those of the training, the network's location may be worse than the learned centre of all
        # subjects. The steps begin at the better of the two.
        centre = jnp.broadcast_to(parameters["centre"], own["loc"].shape)
        loc = _best(near, jnp.stack([own["loc"], centre]))
        for _ in range(self.refine):
            loc = _scored(near, loc)
        factor, good = cholesky(near.information(loc))
        root = jnp.linalg.cholesky(inverse_factored(factor))
        usable = good & jnp.isfinite(root).all((-1, -2))
        root = jnp.where(usable[:, None, None], root, jnp.eye(loc.shape[-1]))
        return {"loc": loc, "factor": root, "log_scale": jnp.log(jnp.diagonal(root, axis1=-2, axis2=-1))}

    def refusals(self, program: Program, pop: Population) -> list[str]:
        """Say which sites have no formula for the Fisher information, if scoring steps need one."""
        instead = "Use Amortised(refine=0), which does without"
        return need_families(program, pop, "Amortised(refine > 0)", instead) if self.refine else []

    def sample(self, member: Any, noise: Vectors) -> Vectors:
        """Return location + factor · noise."""
        return Normal().sample(member, noise)

    def log_density(self, member: Any, eta: Vectors) -> Float[Array, " subject"]:
        """Return the Gaussian's log density."""
        return Normal().log_density(member, eta)

    def moments(self, member: Any, key: Any, size: tuple[int, int]) -> tuple[Vectors, Blocks]:
        """Return location and covariance."""
        return Normal().moments(member, key, size)


def _scored(near: Near, loc: Vectors) -> Vectors:
    """Return each subject's best point along a step of Fisher scoring."""
    _, gradient = value_and_gradient(near.joint, loc)
    factor, good = cholesky(near.information(loc))
    step = jnp.where(good[:, None], solve_factored(factor, gradient), 0.0)
    step = jnp.where(jnp.isfinite(step), step, 0.0)
    return _best(near, loc + jnp.array(_STEP_FRACTIONS)[:, None, None] * step)


def _best(near: Near, tries: Array) -> Vectors:
    """Return, by subject, the point of the highest joint density among ``tries``."""
    return lowest(lambda phi: -near.joint(phi), tries)


def subject_features(pop: Population) -> dict[str, Array]:
    """Return a network's inputs of each subject: records and doses with their masks, and constant covariates."""
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
    """Return mean and SD of every input over all unmasked records, unmasked doses and subjects."""

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
