"""What an observation's distribution tells about its parameters: the Fisher information of FOCE."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array

from hierax.program.smooth import SMOOTH

Params = tuple[Array, ...]


@dataclasses.dataclass(frozen=True)
class Family:
    """One family of observation distributions.

    Attributes
    ----------
    name : str
        The family's name.
    parameters : callable
        Distribution → its parameters.
    whiten : callable
        (parameters, tangents) → arrays whose inner products are the Fisher information of the tangents.
    event : tuple of int
        Number of event axes of each parameter (0 for a univariate family).
    free_of_effects : tuple of str
        For each parameter, its name if it must not depend on random effects, '' if it may.
    log_prob : callable, optional
        (parameters, value) → log density, for Gaussian families (FO and FOCE without interaction freeze the
        scale, the second parameter).
    residual : callable, optional
        (parameters, value) → standardised residual, for Gaussian families.
    location_of : callable
        Value → the location at which its residual is 0, for Gaussian families.
    """

    name: str
    parameters: Callable[[Any], Params]
    whiten: Callable[[Params, Params], Params]
    event: tuple[int, ...]
    free_of_effects: tuple[str, ...]
    log_prob: Callable[[Params, Array], Array] | None = None
    residual: Callable[[Params, Array], Array] | None = None
    location_of: Callable[[Array], Array] = staticmethod(lambda value: value)


def find_family(fn: dist.Distribution) -> Family | None:
    """Return the family of a distribution without wrappers, or None where no information formula is known."""
    for kind, family in FAMILIES:
        if type(fn) in (kind, SMOOTH.get(kind)):
            return family
    return None


def _scaled(parameters: Params, tangents: Params) -> Params:
    loc, scale = parameters[:2]
    return tangents[0] / scale, jnp.sqrt(2.0) * tangents[1] / scale


def _student(parameters: Params, tangents: Params) -> Params:
    _, scale, df = parameters
    return (
        jnp.sqrt((df + 1) / (df + 3)) * tangents[0] / scale,
        jnp.sqrt(2 * df / (df + 3)) * tangents[1] / scale,
    )


def _multivariate(parameters: Params, tangents: Params) -> Params:
    tril = parameters[1]
    loc = jax.scipy.linalg.solve_triangular(tril, tangents[0][..., None], lower=True)[..., 0]
    turned = jax.scipy.linalg.solve_triangular(tril, tangents[1], lower=True)
    spread = (turned + jnp.swapaxes(turned, -1, -2)) / jnp.sqrt(2.0)
    return loc, spread.reshape(*spread.shape[:-2], -1)


def _normal_residual(parameters: Params, value: Array) -> Array:
    return (value - parameters[0]) / parameters[1]


def _multivariate_residual(parameters: Params, value: Array) -> Array:
    difference = (value - parameters[0])[..., None]
    return jax.scipy.linalg.solve_triangular(parameters[1], difference, lower=True)[..., 0]


def _univariate(name: str, get: Any, whiten: Any, free: tuple[str, ...], **more: Any) -> Family:
    return Family(name, get, whiten, (0,) * len(free), free, **more)


FAMILIES: list[tuple[type, Family]] = [
    (
        dist.Normal,
        _univariate(
            "Normal",
            lambda fn: (fn.loc, fn.scale),
            _scaled,
            ("", ""),
            log_prob=lambda p, y: dist.Normal(*p).log_prob(y),
            residual=_normal_residual,
        ),
    ),
    (
        dist.LogNormal,
        _univariate(
            "LogNormal",
            lambda fn: (fn.loc, fn.scale),
            _scaled,
            ("", ""),
            log_prob=lambda p, y: dist.LogNormal(*p).log_prob(y),
            residual=lambda p, y: _normal_residual(p, jnp.log(y)),
            location_of=jnp.log,
        ),
    ),
    (
        dist.MultivariateNormal,
        Family(
            "MultivariateNormal",
            lambda fn: (fn.loc, fn.scale_tril),
            _multivariate,
            (1, 2),
            ("", ""),
            log_prob=lambda p, y: dist.MultivariateNormal(p[0], scale_tril=p[1]).log_prob(y),
            residual=_multivariate_residual,
        ),
    ),
    (dist.StudentT, _univariate("StudentT", lambda fn: (fn.loc, fn.scale, fn.df), _student, ("", "", "df"))),
    (dist.Poisson, _univariate("Poisson", lambda fn: (fn.rate,), lambda p, t: (t[0] / jnp.sqrt(p[0]),), ("",))),
    (dist.Exponential, _univariate("Exponential", lambda fn: (fn.rate,), lambda p, t: (t[0] / p[0],), ("",))),
    (
        dist.BernoulliProbs,
        _univariate("Bernoulli", lambda fn: (fn.probs,), lambda p, t: (t[0] / jnp.sqrt(p[0] * (1 - p[0])),), ("",)),
    ),
    (
        dist.BernoulliLogits,
        _univariate("Bernoulli", lambda fn: (fn.logits,), lambda p, t: (t[0] * _logit_sd(p[0]),), ("",)),
    ),
    (
        dist.BinomialProbs,
        _univariate(
            "Binomial",
            lambda fn: (fn.probs, fn.total_count),
            lambda p, t: (t[0] * jnp.sqrt(p[1] / (p[0] * (1 - p[0]))),),
            ("", "total_count"),
        ),
    ),
    (
        dist.BinomialLogits,
        _univariate(
            "Binomial",
            lambda fn: (fn.logits, fn.total_count),
            lambda p, t: (t[0] * _logit_sd(p[0]) * jnp.sqrt(p[1]),),
            ("", "total_count"),
        ),
    ),
    (
        dist.NegativeBinomial2,
        _univariate(
            "NegativeBinomial2",
            lambda fn: (fn.concentration / fn.rate, fn.concentration),
            lambda p, t: (t[0] * jnp.sqrt(p[1] / (p[0] * (p[0] + p[1]))),),
            ("", "concentration"),
        ),
    ),
    (
        dist.Gamma,
        _univariate(
            "Gamma",
            lambda fn: (fn.rate, fn.concentration),
            lambda p, t: (t[0] * jnp.sqrt(p[1]) / p[0],),
            ("", "concentration"),
        ),
    ),
    (
        # Of the scale, for a known shape: times to an event whose hazard grows or falls with a power of time.
        dist.Weibull,
        _univariate(
            "Weibull",
            lambda fn: (fn.scale, fn.concentration),
            lambda p, t: (t[0] * p[1] / p[0],),
            ("", "concentration"),
        ),
    ),
    (
        dist.CategoricalProbs,
        Family("Categorical", lambda fn: (fn.probs,), lambda p, t: (t[0] / jnp.sqrt(p[0]),), (1,), ("",)),
    ),
    (
        dist.CategoricalLogits,
        Family(
            "Categorical",
            lambda fn: (jax.nn.softmax(fn.logits, axis=-1),),
            lambda p, t: (t[0] / jnp.sqrt(p[0]),),
            (1,),
            ("",),
        ),
    ),
]


def _logit_sd(logits: Array) -> Array:
    probability = jax.nn.sigmoid(logits)
    return jnp.sqrt(probability * (1 - probability))
