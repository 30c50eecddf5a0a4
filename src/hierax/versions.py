"""What differs between versions of the libraries that Hierax builds on."""

from __future__ import annotations

import importlib.metadata


def is_modern() -> bool:
    """Return whether the installed ArviZ stores xarray DataTrees (1.x)."""
    return int(importlib.metadata.version("arviz").split(".")[0]) >= 1
