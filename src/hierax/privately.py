"""Access to private names of NumPyro for which it has no public ones; no other file uses such names."""

from __future__ import annotations

from typing import Any

from numpyro.primitives import _PYRO_STACK


def handlers_in_force() -> list[Any]:
    """Return NumPyro's effect handlers that are in force, the outermost first; empty outside of a program that runs."""
    return _PYRO_STACK


def mask_of(masked: Any) -> Any:
    """Return the mask of a ``MaskedDistribution``: an array, True or False."""
    return masked._mask
