"""Checks of arguments, which refuse invalid values before anything is computed."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def whole(name: str, value: Any, least: int = 1) -> int:
    """Return ``value`` as an int, if it is a whole number of at least ``least``.

    Raises
    ------
    ValueError
        The value is not a whole number, or it is smaller than ``least``.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise ValueError(f"{name}={value!r} must be a whole number of {least} or more, given as an int.")
    return number


def positive(name: str, value: Any) -> float:
    """Return a finite number above 0, or raise a ValueError."""
    if not is_number(value) or not 0 < value < np.inf:
        raise ValueError(f"{name}={value!r} must be a number above 0.")
    return float(value)


def mapping(name: str, value: Any, of: str) -> dict[str, Any]:
    """Return a mapping as a dictionary (empty for None), or raise a ValueError; ``of`` says what it should map."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(
            f"{name} is a {type(value).__name__}, but must be a mapping of {of}. Write {name}={{'name': ...}}."
        )
    return dict(value)


def path_of(name: str, value: Any) -> Path | None:
    """Return a path (None for None), or raise a ValueError if the value is not one."""
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike) or isinstance(value, bytes):
        raise ValueError(f"{name}={value!r} must be a path. Give the name of a file as text.")
    return Path(value)


def is_number(value: Any) -> bool:
    """Return whether a value is one real number, of Python, NumPy or JAX."""
    return np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iuf"
