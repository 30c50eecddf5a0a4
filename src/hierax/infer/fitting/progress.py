"""The progress line of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from hierax.program.sites import is_tree


class Progress:
    """Shows evaluation, OFV, standardised gradient and time while a search runs."""

    def __init__(self, shown: bool, label: str, constant: float):
        self.constant, self.label = constant, label
        self.bar = tqdm(desc=label, unit=" evaluations", disable=not shown, leave=True)

    def begin(self, params: Mapping[str, Any]) -> None:
        """Show the start values of all parameters but networks."""
        shown = {name: value for name, value in params.items() if not is_tree(value)}
        text = ", ".join(f"{name} {np.array2string(value, precision=4, threshold=9)}" for name, value in shown.items())
        if not self.bar.disable:
            self.bar.write(f"{self.label} starts at {text}")

    def show(self, start: int, row: dict[str, float]) -> None:
        """Show one evaluation of a start."""
        text = f"OFV {2 * row['value'] - self.constant:.4f}, gradient {row['gradient']:.1e}"
        self.bar.set_postfix_str(text + (f", start {start}" if start else ""), refresh=False)
        self.bar.update(1)

    def tell(self, text: str, count: int) -> None:
        """Show what an algorithm says about its last ``count`` iterations."""
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(count)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, where: TracebackType | None) -> None:
        self.bar.close()
