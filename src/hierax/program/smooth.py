"""Logit distributions whose log density is smooth: NumPyro's has a kink in its formula at a logit of exactly 0.

There the values are right but the first derivative comes out as 0 or ±1 instead of y - 1/2, and a reference point of
the random effects can well lie there.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array


class SmoothBernoulliLogits(dist.BernoulliLogits):
    """Bernoulli by its logit; log p(y) = y·x - log(1 + eˣ)."""

    def log_prob(self, value: Any, intermediates: Any = None) -> Array:
        """Return the log density."""
        return value * self.logits - jax.nn.softplus(self.logits)


class SmoothBinomialLogits(dist.BinomialLogits):
    """Binomial by its logit; log p(y) = log C(n, y) + y·x - n·log(1 + eˣ)."""

    def log_prob(self, value: Any, intermediates: Any = None) -> Array:
        """Return the log density."""
        n, logits = jnp.asarray(self.total_count, float), jnp.asarray(self.logits)
        ways = -jnp.log1p(n) - jax.scipy.special.betaln(n - value + 1, value + 1.0)
        return ways + value * logits - n * jax.nn.softplus(logits)


# NumPyro's distribution → its version with a smooth log density.
SMOOTH: dict[type, type] = {dist.BernoulliLogits: SmoothBernoulliLogits, dist.BinomialLogits: SmoothBinomialLogits}
