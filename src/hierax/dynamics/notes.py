"""What structural models have to say of the doses and functions that they are given, to whoever listens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from numpyro.primitives import Messenger

from hierax import errors
from hierax.privately import handlers_in_force


@dataclasses.dataclass(frozen=True)
class Note:
    """Something that a user should know of a structural model with these data.

    Attributes
    ----------
    text : str
        The whole message; ``{subjects}`` stands for the subjects that it is about.
    about : bool array, (subject,), or True
        Which subjects it is about; none: there is nothing to say. A traced array inside a compiled function.
    harmless : bool
        Whether nothing is wrong with the numbers, so that ``hx.check`` alone says it.
    """

    text: str
    about: Any = True
    harmless: bool = False

    def sentence(self, about: Any, ids: list[Any]) -> str | None:
        """Return the message with the names of the subjects, or None where it is about none of them."""
        if about is True:
            return self.text.replace("{subjects}", "all subjects")
        rows = np.flatnonzero(np.asarray(about)[: len(ids)])
        if not rows.size:
            return None
        names = ", ".join(str(ids[row]) for row in rows[:5]) + (", ..." if rows.size > 5 else "")
        every = "all subjects" if rows.size == len(ids) else f"subject{'s' if rows.size > 1 else ''} {names}"
        return self.text.replace("{subjects}", every)


class Listener(Messenger):
    """Hears the notes of the structural models that a program calls."""

    def __init__(self) -> None:
        super().__init__(None)
        self.notes: list[Note] = []


def tell(pop: Any, notes: Callable[[], Iterator[Note]]) -> None:
    """Tell notes to the program that is being read, or to a user who calls a structural model directly.

    ``notes`` is called only where someone listens: a program is run many times, and read once.
    """
    listeners = [handler for handler in handlers_in_force() if isinstance(handler, Listener)]
    if listeners:
        listeners[-1].notes += list(notes())
        return
    if handlers_in_force() or any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((pop.times, pop.events))):
        return
    for note in notes():
        if note.harmless or isinstance(note.about, Tracer):
            continue
        text = note.sentence(note.about, pop.subject_ids)
        if text is not None:
            errors.tell(text)
