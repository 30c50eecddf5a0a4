"""Learning the distribution of random effects from draws of each subject's conditional distribution.

Draws η of p(η | y) under a prior p₀ take the place of the data: the marginal likelihood under another prior p is the
mean of p(η)/p₀(η) over the draws, times a factor that does not depend on p. The model of the data need not be evaluated
again.

The log of a mean over M draws is biased low by half its relative variance. The bias is the larger, the wider a
subject's posterior is and the farther p is from p₀. Maximising the log mean as it stands would therefore prefer
distributions that are as flat as p₀ (it is the bound of Burda, Grosse & Salakhutdinov 2016 with K = M). So every step
takes all draws of a subject and adds the first-order bias back, and the size of the bias is judged at the end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
from jax.tree_util import keystr, tree_map_with_path
from jaxtyping import Array, Bool, Float
from numpyro import handlers
from numpyro.distributions.transforms import biject_to

from hierax.errors import ModelError
from hierax.nn.masked import INNER
from hierax.program.sites import is_tree
from hierax.program.trace import RUNNING, cast_weights

Build = Callable[[Any], dist.Distribution]

# Steps of Adam between two looks at the held-out subjects.
_BLOCK = 50
# Learning rates at the start, without and with a context (whose networks start far from where they have to go), and the
# length to which longer gradients are cut.
_RATE, _CLIP = (5e-3, 1e-2), 10.0
# How many subjects a step of the optimiser looks at, each with all its draws. The noise of such a batch also moves the
# search out of places where full gradients would end it.
_SUBJECTS = 100
# A step takes at most this many draws of all its subjects together, for which it looks at fewer subjects if need be.
_DRAWS_PER_STEP = 16_000
# However many draws each subject has, a step looks at this many subjects or more.
_FEWEST = 25


@dataclasses.dataclass(frozen=True)
class Draws:
    """Standardised draws of each subject's random effects, and their log prior density.

    Attributes
    ----------
    z : array, (draw, subject, coordinate)
    log_prior : array, (draw, subject)
        Log density of ``z`` under the distribution that they were drawn with.
    context : array, (subject, 1, column), or None
    """

    z: Float[np.ndarray, "draw subject coordinate"]
    log_prior: Float[np.ndarray, "draw subject"]
    context: Array | None = None


class Trained(NamedTuple):
    """Weights, and the gain of each subject over the prior of the draws (nats)."""

    flat: Array
    gain: Float[Array, " subject"]


class Learner:
    """Maximum likelihood for the parameters of a distribution.

    Parameters
    ----------
    build : callable
        Context (or None) → distribution of the standardised random effects; registers its parameters with NumPyro.
    draws : Draws
    seed : int
        Seed of the networks' start weights.
    steps : int
        Largest number of steps of Adam.

    Attributes
    ----------
    start : array, (parameter,)
        Unconstrained parameters before any training.
    """

    def __init__(self, build: Build, draws: Draws, seed: int = 0, steps: int = 1000):
        self.build, self.draws = build, draws
        self._blocks = max(1, steps // _BLOCK)
        with RUNNING:
            trace = handlers.trace(handlers.seed(build, seed)).get_trace(draws.context)
        sites = {name: site for name, site in trace.items() if site["type"] == "param"}
        if not sites:
            raise ModelError(
                "distribution= registers no parameters, so that there is nothing to learn. Use hx.flow, "
                "nn.conditional_normal, or numpyro.param inside it."
            )
        self._transforms = {
            name: biject_to(site["kwargs"].get("constraint", dist.constraints.real))
            for name, site in sites.items()
            if not is_tree(site["value"])
        }
        values = {name: site["value"] for name, site in sites.items()}
        free = {name: self._transforms[name].inv(v) if name in self._transforms else v for name, v in values.items()}
        free = cast_weights(free)
        self.start, self._unravel = jax.flatten_util.ravel_pytree(free)
        self._penalised = jax.flatten_util.ravel_pytree(tree_map_with_path(_penalised, free))[0]
        self._run = jax.jit(self._search)
        self._gain_with = jax.jit(self._gain)

    def params(self, flat: Array) -> dict[str, Any]:
        """Return constrained parameters by site."""
        free = self._unravel(flat)
        return {n: self._transforms[n](v) if n in self._transforms else v for n, v in free.items()}

    def gain_with(self, flat: Array, context: Any) -> Float[Array, " subject"]:
        """Return the gains that subjects would have with another context."""
        return self._gain_with(flat, self.draws.z, self.draws.log_prior, jnp.asarray(context))

    def gain(self, flat: Array, rows: Array | None = None) -> Float[Array, " subject"]:
        """Return the log likelihood ratio (nats) of each subject, or of ``rows``, to the prior of the draws."""
        return self._gain(flat, *self._data(rows))

    def bias(self, flat: Array) -> Float[Array, " subject"]:
        """Return how much the log of each subject's mean ratio is too low, to first order; ``gain`` adds it back."""
        return _log_mean(self._ratios(flat, *self._data(None)))[1]

    def _data(self, rows: Array | None) -> tuple[Array, Array, Array | None]:
        data = self.draws
        z, log_prior, context = jnp.asarray(data.z), jnp.asarray(data.log_prior), data.context
        if rows is None:
            return z, log_prior, context
        return z[:, rows], log_prior[:, rows], None if context is None else context[rows]

    def _gain(self, flat: Array, z: Array, log_prior: Array, context: Array | None) -> Array:
        raw, bias = _log_mean(self._ratios(flat, z, log_prior, context))
        return raw + bias

    def _ratios(self, flat: Array, z: Array, log_prior: Array, context: Array | None) -> Array:
        """Return log p/p₀ of every draw, (draw, subject)."""
        with RUNNING, handlers.block(), handlers.substitute(data=self.params(flat)):
            fn: Any = self.build(context)
        return fn.log_prob(z[:, :, None, :])[..., 0] - log_prior

    def train(
        self,
        kept: Bool[np.ndarray, " subject"],
        strength: float,
        *,
        watched: Bool[np.ndarray, " subject"] | None = None,
        patience: int = 5,
    ) -> Trained:
        """Maximise the log likelihood of the kept subjects minus ``strength``·Σw², by Adam.

        The sum leaves out layers inside a flow. ``watched`` subjects, if any, are looked at every 50 steps: the weights
        that make them most likely are returned, and the search ends after ``patience`` looks without a gain.
        """
        none = np.zeros(len(kept), bool)
        looks = jnp.asarray(self._blocks if watched is None else patience)
        seen = none if watched is None else watched
        return Trained(*self._run(jnp.asarray(kept), jnp.asarray(seen), jnp.asarray(strength, float), looks))

    def _search(self, kept: Array, watched: Array, strength: Array, patience: Array) -> Any:
        rate = optax.cosine_decay_schedule(_RATE[self.draws.context is not None], self._blocks * _BLOCK)
        optimiser = optax.chain(optax.clip_by_global_norm(_CLIP), optax.adam(rate))
        draws, subjects = self.draws.log_prior.shape
        odds = kept / kept.sum()

        batch = min(_SUBJECTS, max(_FEWEST, _DRAWS_PER_STEP // draws), subjects)

        def loss(flat: Array, key: Array) -> Array:
            rows = jax.random.choice(key, subjects, (batch,), p=odds)
            penalty = strength * jnp.sum(self._penalised * flat**2)
            return penalty / kept.sum() - self.gain(flat, rows).mean()

        def step(carry: Any, key: Array) -> Any:
            flat, state = carry
            update, state = optimiser.update(jax.grad(loss)(flat, key), state, flat)
            return (optax.apply_updates(flat, update), state), None

        def look(carry: Any) -> Any:
            keys = jax.random.split(jax.random.fold_in(jax.random.key(0), carry["block"]), _BLOCK)
            (flat, state), _ = jax.lax.scan(step, (carry["flat"], carry["state"]), keys)
            # Without watched subjects every look counts as a gain, so that the last weights are returned.
            seen = jax.lax.cond(watched.any(), self._total, lambda flat, _: jnp.inf, flat, watched)
            better = (seen > carry["seen"]) | jnp.isposinf(seen)
            best = jnp.where(better, flat, carry["best"])
            stale = jnp.where(better, 0, carry["stale"] + 1)
            seen = jnp.maximum(seen, carry["seen"])
            return {
                "flat": flat, "state": state, "best": best, "seen": seen, "stale": stale, "block": carry["block"] + 1
            }  # fmt: skip

        def more(carry: Any) -> Array:
            return (carry["block"] < self._blocks) & (carry["stale"] < patience)

        start = {
            "flat": self.start, "state": optimiser.init(self.start), "best": self.start,
            "seen": jnp.asarray(-jnp.inf), "stale": jnp.asarray(0), "block": jnp.asarray(0),
        }  # fmt: skip
        best = jax.lax.while_loop(more, look, start)["best"]
        return best, self.gain(best)

    def _total(self, flat: Array, rows: Array) -> Array:
        return jnp.sum(jnp.where(rows, self.gain(flat), 0.0))


def _log_mean(ratio: Array) -> tuple[Array, Array]:
    """Return the log of the mean of exp(ratio) over draws, and by how much it is too low on average.

    The bias of log w̄ is −Var(w) / (2 M E[w]²), which is ½(1/ESS − 1/M) with the effective sample size (Σw)²/Σw².
    """
    count = ratio.shape[0]
    total = jax.nn.logsumexp(ratio, axis=0)
    inverse_ess = jnp.exp(jax.nn.logsumexp(2 * ratio, axis=0) - 2 * total)
    return total - jnp.log(count), 0.5 * (inverse_ess - 1 / count)


def _penalised(path: Any, leaf: Array) -> Array:
    """Return 1 for the matrices of contexts and outputs, which make a flow Gaussian if they are 0; 0 for the rest."""
    return jnp.full(leaf.shape, float(leaf.ndim == 2 and INNER not in keystr(path)))
