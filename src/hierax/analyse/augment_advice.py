"""What a user should know of a learned distribution before relying on it."""

from __future__ import annotations

from collections.abc import Sequence

from hierax.errors import tell
from hierax.infer.learn.choice import Choice

# A bias below this share of the gain, or below so many nats, is small: at 10⁻³ nats a subject a thousand subjects are
# one nat, which no choice of a distribution hangs on. A bias of this many times as much makes the distribution too flat
# to be kept quiet about.
_SHARE, _SLIGHT, _WORTH_SAYING = 0.02, 1e-3, 3.0


def tolerated_bias(gain: float) -> float:
    """Return the mean bias (nats a subject) that is small beside a mean gain."""
    return max(_SHARE * abs(gain), _SLIGHT)


def advise(choice: Choice, penalties: Sequence[float], bias: float, learned: float) -> None:
    """Warn where the result is worse than what it would replace, at the end of a list, or known badly."""
    _tell_ends(choice, penalties)
    if bias > _WORTH_SAYING * tolerated_bias(learned):
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
    """Warn where the best strength is the first or the last of several, so that a better one may lie beyond."""
    ends = {max(penalties): ("strongest", "stronger", 5.0), min(penalties): ("weakest", "weaker", 0.2)}
    if len(set(penalties)) < 2 or choice.strength not in ends:
        return
    which, beyond, factor = ends[choice.strength]
    tell(
        f"The {which} penalty of the list, {choice.strength:g}, was chosen, so that the best one may be {beyond} "
        f"still, because held-out subjects were most likely at the end of what was tried. Add "
        f"{choice.strength * factor:g} to penalties=.",
    )
