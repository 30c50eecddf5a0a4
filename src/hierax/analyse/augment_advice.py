"""Warnings that a user should see before relying on a learned distribution of random effects."""

from __future__ import annotations

from collections.abc import Sequence

from hierax.errors import tell
from hierax.infer.learn.choice import Choice

# A bias counts as small if it is below this share of the gain.
_GAIN_SHARE = 0.02
# A bias also counts as small if it is below this, in nats per subject: over a thousand subjects it adds up to one nat,
# which decides no choice between distributions.
_SMALL_BIAS = 1e-3
# A bias that is this many times larger than what counts as small makes the distribution clearly too flat, and is warned
# of.
_WARNING_FACTOR = 3.0


def tolerated_bias(gain: float) -> float:
    """Return the largest mean bias (nats per subject) that counts as small beside a mean gain."""
    return max(_GAIN_SHARE * abs(gain), _SMALL_BIAS)


def advise(choice: Choice, penalties: Sequence[float], bias: float, learned: float) -> None:
    """Warn of an extreme penalty, of a large bias, and of a learned distribution that is worse than the fit's own."""
    _tell_ends(choice, penalties)
    if bias > _WARNING_FACTOR * tolerated_bias(learned):
        tell(
            f"The log of the mean over {len(choice.learner.draws.z)} draws is too low by {bias:.4f} nats a subject on "
            f"average, and the gain is {learned:.4f}: so few draws favour distributions that are too flat, because "
            f"some subjects' data say little. Ask for more with draws=, or leave draws= out.",
        )
    gain = choice.mean(choice.strength)
    if not gain > 0:
        tell(
            f"Held-out subjects are less likely under the learned distribution than under the fit's own (gain "
            f"{gain:.3f} nats a subject). Keep the fit's, or try stronger penalties=.",
        )


def _tell_ends(choice: Choice, penalties: Sequence[float]) -> None:
    """Warn where the best strength is the strongest or the weakest of several, so that a better one may lie beyond."""
    ends = {max(penalties): ("strongest", "stronger", 5.0), min(penalties): ("weakest", "weaker", 0.2)}
    if len(set(penalties)) < 2 or choice.strength not in ends:
        return
    which, beyond, factor = ends[choice.strength]
    tell(
        f"The {which} penalty of the list, {choice.strength:g}, was chosen: held-out subjects were most likely under "
        f"the {which} penalty that was tried, so that a {beyond} one may be better still. Add "
        f"{choice.strength * factor:g} to penalties=.",
    )
