"""Notes from structural models to the user, about the doses and functions that the models were given."""

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
    """Something that a user should know about a structural model with these data.

    Attributes
    ----------
    text : str
        The whole message; ``{subjects}`` stands for the subjects that it is about.
    about : bool array, (subject,), or True
        Which subjects the note is about (True: all of them). If it is about none, it is not shown. Inside a compiled
        function the array is traced.
    harmless : bool
        Whether the predictions are right all the same, so that only ``hx.check`` shows the note.
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
    """A handler that collects the notes of the structural models that a program calls."""

    def __init__(self) -> None:
        super().__init__(None)
        self.notes: list[Note] = []


def tell(pop: Any, notes: Callable[[], Iterator[Note]]) -> None:
    """Pass notes to the handler that collects them, or warn a user who calls a structural model directly.

    ``notes`` is called only if its notes are used: a program is run many times, but notes are collected once.
    """
    listeners = [handler for handler in handlers_in_force() if isinstance(handler, Listener)]
    if listeners:
        listeners[-1].notes += list(notes())
        return
    # A program that is run without a listener, or a compiled function: its notes are collected elsewhere.
    if handlers_in_force() or any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((pop.times, pop.events))):
        return
    for note in notes():
        if note.harmless or isinstance(note.about, Tracer):
            continue
        text = note.sentence(note.about, pop.subject_ids)
        if text is not None:
            errors.tell(text)
