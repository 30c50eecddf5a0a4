"""The progress line of a fit."""

from __future__ import annotations

import time
from types import TracebackType

from tqdm.auto import tqdm


class Progress:
    """Shows evaluation, OFV, standardised gradient and time while a search runs."""

    def __init__(self, shown: bool, label: str, constant: float):
        self.constant = constant
        self.started = time.perf_counter()
        self.bar = tqdm(desc=label, unit=" evaluations", disable=not shown, leave=True)

    def show(self, start: int, row: dict[str, float]) -> None:
        """Show one evaluation of a start."""
        text = f"OFV {2 * row['value'] - self.constant:.4f}, gradient {row['gradient']:.1e}"
        self.bar.set_postfix_str(text + (f", start {start}" if start else ""), refresh=False)
        self.bar.update(1)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, where: TracebackType | None) -> None:
        self.bar.close()
