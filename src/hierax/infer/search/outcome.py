"""How a search ended."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hierax.infer.result import Result
from hierax.infer.search.scaling import Point


class Search(NamedTuple):
    """How a search ended, and its best point."""

    x: np.ndarray
    point: Point
    result: Result
    why: str
    history: list[dict[str, float]]


class Enough(Exception):
    """Raised by ``watch`` to end a search; its message says why."""
