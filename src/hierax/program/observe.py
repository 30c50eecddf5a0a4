"""``hx.observe``: the observed site of an endpoint, safe where there is no observation."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro import handlers

from hierax.data.population import Population
from hierax.program.smooth import SMOOTH


def observe(name: str, distribution: dist.Distribution, pop: Population) -> Array:
    """Observe an endpoint: open the ``time`` plate and condition on the data of the population.

    Parameters
    ----------
    name : str
        The endpoint: a key of ``pop.dv``; also the name of the site.
    distribution : numpyro Distribution
        Batch shape broadcastable to ``(subject, time)``, no event axes.
    pop : Population
        Data and masks. Endpoints with censored records are observed through NumPyro's censored distributions:
        left (CENS = 1: below DV), right (CENS = -1: above DV), or interval (LIMIT given, or both kinds).

    Returns
    -------
    array, (subject, time)
        The data, or draws where a handler asks for them.

    Notes
    -----
    At entries that are not data of the endpoint, the *parameters* of the distribution are replaced by constants before
    its log density is computed, so that predictions of 0, infinity or NaN there change neither values nor derivatives.

    Examples
    --------
    >>> def constant(pop):
    ...     level = numpyro.param('level', 5.0)
    ...     with numpyro.plate('subject', pop.n_subjects, dim=-2):
    ...         hx.observe('dv', dist.Normal(level + 0 * pop.times, 1.0), pop)
    >>> hx.check(constant, pop, show=False).index.tolist()
    ['level', 'dv']
    """
    if name not in pop.dv:
        raise ValueError(
            f"observe('{name}', ...) finds no such endpoint, because the population has {list(pop.dv)}. "
            f"Use one of these names, or name the endpoints in read_nonmem(endpoints=...)."
        )
    shape = (pop.n_subjects, pop.n_records)
    if distribution.event_shape:
        raise ValueError(
            f"observe('{name}', ...) got a distribution with event shape {tuple(distribution.event_shape)}, but the "
            f"records are the batch axis 'time'. Leave `.to_event` away, or write numpyro.sample with obs= yourself."
        )
    try:
        jnp.broadcast_shapes(tuple(distribution.batch_shape), shape)
    except ValueError:
        raise ValueError(
            f"observe('{name}', ...) got batch shape {tuple(distribution.batch_shape)}, which does not broadcast to "
            f"(subject, time) = {shape}. Individual parameters are (subject, 1), predictions (subject, time)."
        ) from None
    mask = jnp.asarray(pop.mask[name])
    safe = _mask_parameters(distribution, mask)
    value = _safe_value(safe, jnp.asarray(pop.dv[name]), mask)
    if name in pop.cens:
        safe, value = _censor(safe, value, dict(pop.censoring)[name], pop.cens[name], pop.limit[name], mask)
    with _records(name, pop), handlers.mask(mask=mask):
        return jnp.asarray(numpyro.sample(name, safe, obs=value))


def _records(name: str, pop: Population) -> numpyro.plate:
    try:
        return numpyro.plate("time", pop.n_records, dim=-1)
    except AssertionError:
        raise ValueError(
            f"observe('{name}', ...) finds another plate on dimension -1, which is that of the records. Write the "
            f"plate of subjects as numpyro.plate('subject', pop.n_subjects, dim=-2), so that what is sampled in it "
            f"is (subject, 1), and leave plates of records to observe."
        ) from None


def _mask_parameters(fn: Any, mask: Array) -> Any:
    """Return the distribution with valid constants as its parameters at masked entries."""
    names = _constructor_parameters(fn)
    if names is None:
        return _mask_leaves(fn, mask).expand(mask.shape)
    values = {}
    for name, constraint in names.items():
        value = jnp.asarray(getattr(fn, name))
        hold = mask.reshape(mask.shape + (1,) * constraint.event_dim)
        value = jnp.broadcast_to(value, mask.shape + value.shape[value.ndim - constraint.event_dim :])
        values[name] = jnp.where(hold, value, constraint.feasible_like(value))
    return SMOOTH.get(type(fn), type(fn))(**values)


def _constructor_parameters(fn: Any) -> dict[str, Any] | None:
    """Return the parameters from which a distribution can be built again, or None if these are not known."""
    if isinstance(fn, dist.MultivariateNormal | dist.ExpandedDistribution | dist.MaskedDistribution):
        return None
    wanted = {name: constraint for name, constraint in type(fn).arg_constraints.items() if hasattr(fn, name)}
    accepted = inspect.signature(type(fn).__init__).parameters
    needed = [
        name
        for name, parameter in accepted.items()
        if name != "self" and parameter.default is inspect.Parameter.empty and parameter.kind != parameter.VAR_KEYWORD
    ]
    complete = set(needed) <= set(wanted) <= set(accepted) and len(wanted) == len(type(fn).arg_constraints)
    return wanted if wanted and complete and all(_has_feasible(constraint) for constraint in wanted.values()) else None


def _has_feasible(constraint: Any) -> bool:
    try:
        constraint.feasible_like(jnp.zeros((2,) * max(constraint.event_dim, 1)))
    except (NotImplementedError, AttributeError, TypeError):
        return False
    return True


def _mask_leaves(fn: Any, mask: Array) -> Any:
    """Put 0.5, which every scalar parameter may be, at masked entries of all arrays of a composed distribution."""

    def replace(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        fits = leaf.ndim >= 2 and leaf.shape[:2] == mask.shape
        if not fits:
            return leaf
        return jnp.where(mask.reshape(mask.shape + (1,) * (leaf.ndim - 2)), leaf, 0.5)

    return jax.tree.map(replace, fn)


def _safe_value(fn: Any, value: Array, mask: Array) -> Array:
    if fn.is_discrete:
        value = value.astype(int)
    try:
        feasible = fn.support.feasible_like(value)
    except (NotImplementedError, AttributeError):
        return value
    return jnp.where(mask, value, feasible)


def _censor(fn: Any, value: Array, kind: str, cens: Any, limit: Any, mask: Array) -> tuple[Any, Array]:
    """Return a distribution that accounts for censored records, and the value that it takes."""
    cens = jnp.where(mask, jnp.asarray(cens), 0)
    try:
        fn.cdf(value)
    except NotImplementedError:
        kind = type(fn).__name__.removeprefix("Smooth")
        raise ValueError(
            f"The data of a {kind} are censored, but it has no distribution function by which a censored "
            f"record could be counted. Take CENS away, or use another distribution."
        ) from None
    if kind == "left":
        return dist.LeftCensoredDistribution(fn, cens == 1), value
    if kind == "right":
        return dist.RightCensoredDistribution(fn, cens == -1), value
    # An interval that reaches down to the end of the support (0 for a log-normal) or beyond is plain left censoring.
    limit = jnp.asarray(limit)
    limit = jnp.where((cens == 1) & ~fn.support(limit), -jnp.inf, limit)
    lower = jnp.where(cens == 1, limit, value)
    upper = jnp.where(cens == -1, limit, value)
    left = (cens == 1) & ~jnp.isfinite(limit)
    right = (cens == -1) & ~jnp.isfinite(limit)
    return dist.IntervalCensoredDistribution(fn, left, right), jnp.stack([lower, upper], axis=-1)
