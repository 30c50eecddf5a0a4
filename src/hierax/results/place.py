"""Description, for messages, of the data entry that something is wrong with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from hierax.results.fit import Evaluation


def describe_place(result: Evaluation, index: np.ndarray, bad: np.ndarray) -> str:
    """Return the subject of an entry, its time where the site has records, and the number of bad entries."""
    pop, row = result.pop, int(index[0])
    at = np.searchsorted(result.rows, row)
    subject = result.ids[at] if at < len(result.rows) and result.rows[at] == row else row
    text = f"subject {subject}"
    if bad.shape == np.shape(pop.times):
        text += f", time {float(np.asarray(pop.times)[tuple(index)]):g}"
    return f"{text} ({int(bad.sum())} entries in all)"
