"""What is known of a subject in words or pictures: simulated clinical notes, and handwritten digits as severities."""

from pathlib import Path

import numpy as np
import shapes

_GRADES = (
    ["no complaints today", "feels entirely well", "is in excellent shape", "has no symptoms at all"],
    ["reports mild tiredness", "has slight nausea at times", "is a little short of breath", "notes minor swelling"],
    ["has moderate fatigue", "feels weak on most days", "has troublesome nausea", "is noticeably short of breath"],
    ["is severely fatigued", "is in serious distress", "has severe oedema and vomiting", "is gravely weakened"],
    [
        "is critically ill",
        "has life-threatening organ failure",
        "is close to collapse",
        "needs intensive care urgently",
    ],
)
_ASIDES = (
    "Came with a relative.",
    "Lives near the park.",
    "Asked about parking.",
    "Was seen on a Tuesday.",
    "Prefers morning visits.",
    "Retired teacher.",
    "Works in a bakery.",
    "Enjoys gardening.",
    "Has two cats.",
    "The file was complete.",
)


def note(score, rng):
    """Return a note that gives a score away, roughly: its grade in words, among things of no interest."""
    grade = int(np.clip(np.round(1.2 * score + 2), 0, 4))
    asides = rng.choice(_ASIDES, 2, replace=False)
    return f"{asides[0]} The patient {rng.choice(_GRADES[grade])}. {asides[1]}"


def embedded(notes):
    """Return embeddings of texts by a small model that needs no network, (text, 256)."""
    import wordllama

    folder = Path(wordllama.__file__).parent
    return np.asarray(wordllama.WordLlama.load(cache_dir=folder, disable_download=True).embed(notes), float)


def words(n, seed):
    """Return scores and embeddings of notes."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=n)
    return score, embedded([note(one, rng) for one in score])


def pictures(n, seed, test=False):
    """Return severities, standardised, and images of the digits that stand for them, (subject, 64).

    Images of the training and the test subjects are different ones.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    rng = np.random.default_rng(seed)
    images, digits = data.images.reshape(len(data.images), -1) / 16.0, data.target
    chosen = rng.choice(np.flatnonzero(np.arange(len(digits)) % 3 == 0 if test else np.arange(len(digits)) % 3 > 0), n)
    return (digits[chosen] - 4.5) / 2.87, images[chosen]


def responding(score, seed, effect=0.4):
    """Return a population whose clearance depends on a score (a covariate), with the random effects."""
    pop = shapes.design(len(score), score=score)
    return shapes.simulated(None, len(score), seed, shapes.by_score(effect), pop)
