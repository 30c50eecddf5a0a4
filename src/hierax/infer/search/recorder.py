"""Evaluations of a search, kept so that an interrupted search can be repeated without evaluating again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from hierax.infer.run.checkpoint import Checkpoint
from hierax.infer.search.scaling import Point

# The arrays of a checkpoint: the unconstrained parameters (`at`), and the fields of the points there.
_NAMES = ("at", "value", "gradient", "scores", "state", "penalty")


@dataclasses.dataclass
class Recorder:
    """All points that the searches of a fit have evaluated, in order.

    A search depends on the points that it has evaluated and on nothing else. A resumed fit therefore searches from the
    beginning, but takes these points instead of evaluating. When they are used up it is, bitwise, where it was.
    """

    checkpoint: Checkpoint
    points: list[tuple[np.ndarray, Point]] = dataclasses.field(default_factory=list)
    used: int = 0

    def __post_init__(self) -> None:
        saved = self.checkpoint.load(dict.fromkeys(_NAMES, np.zeros(0)))
        if saved is None:
            return
        for index in range(len(saved["at"])):
            parts = {name: saved[name][index] for name in _NAMES[1:]}
            scores = parts.pop("scores")
            value, penalty = float(parts.pop("value")), float(parts.pop("penalty"))
            point = Point(value, parts["gradient"], scores if scores.size else None, parts["state"], penalty)
            self.points.append((saved["at"][index], point))

    def point(self, at: np.ndarray, evaluate: Callable[[], Point]) -> Point:
        """Return the next known point, or evaluate and keep one."""
        if self.used < len(self.points):
            known, point = self.points[self.used]
            if not np.array_equal(known, at):
                # The search has taken another path (on another machine, say), so that the later points are of no use.
                del self.points[self.used :]
            else:
                self.used += 1
                return point
        point = evaluate()
        if self.checkpoint.path is not None:
            self.points.append((at.copy(), point._replace(state=np.asarray(point.state))))
            self.used += 1
            self.checkpoint.offer(self.tree)
        return point

    def tree(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        points = [point for _, point in self.points]
        return {
            "at": np.array([at for at, _ in self.points]),
            "value": np.array([point.value for point in points]),
            "gradient": np.array([point.gradient for point in points]),
            "scores": np.array([np.zeros(0) if point.scores is None else point.scores for point in points]),
            "state": np.array([np.asarray(point.state) for point in points]),
            "penalty": np.array([point.penalty for point in points]),
        }

    def save(self) -> None:
        """Write all points now."""
        if self.points:
            self.checkpoint.save(self.tree())
