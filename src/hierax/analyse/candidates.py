"""The distributions of random effects that ``hx.augment`` chooses from."""

from __future__ import annotations

from typing import Any, cast

from hierax.infer.learn.two_stage import Build
from hierax.nn.flow import flow


def candidates_of(distribution: Any, name: str, size: int) -> dict[str, Build]:
    """Return the distributions to choose from, by label: those that were given, or two kinds of flows by default."""
    if distribution is None:
        return {f"{kind} flow": _flow(name, size, kind) for kind in ("sinh", "affine")}
    if callable(distribution):
        return {"distribution": cast(Build, distribution)}
    return dict(distribution)


def _flow(name: str, size: int, kind: str) -> Build:
    return lambda context: flow(name, size, context, kind=kind, layers=4)
