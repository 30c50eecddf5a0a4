"""A fit that runs in blocks of compiled iterations: progress, checkpoints and interruption between them."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

from hierax.infer.fitting.progress import Progress
from hierax.infer.procedure import Procedure
from hierax.infer.result import Result

if TYPE_CHECKING:
    from hierax.infer.fitting.job import Job


class Blocks(abc.ABC):
    """Base of the runs of SAEM, VI and NUTS."""

    def __init__(self, job: Job, method: Procedure):
        self.job, self.method = job, method

    @property
    @abc.abstractmethod
    def finished(self) -> bool:
        """Whether there is no more to do."""

    @property
    def broken(self) -> bool:
        """Whether the last values are not finite, so that going on is of no use."""
        return False

    @abc.abstractmethod
    def advance(self, bar: Progress) -> None:
        """Run one block, and show on the bar how it went."""

    @abc.abstractmethod
    def tree(self) -> Any:
        """Return everything that the rest of the run depends on, and the history."""

    @abc.abstractmethod
    def restore(self, saved: Any) -> None:
        """Go on from what ``tree`` returned."""

    def known(self) -> dict[str, Any]:
        """Return fields of a fit (``flat`` and more) that are known where the run stands, without computing."""
        return {}

    def template(self) -> Any:
        """Return the structure of ``tree``."""
        return self.tree()

    def announce(self, bar: Progress) -> None:
        """Show the start values."""
        bar.begin(self.job.layout.params(self.job.flat))

    def go(self) -> Result:
        """Run to the end from the start or a checkpoint, or until interrupted."""
        checkpoint = self.job.checkpoint
        saved = checkpoint.load(self.template())
        if saved is not None:
            self.restore(saved)
        self.job.known = self.known
        with Progress(self.job.progress, self.method.label, 0.0) as bar, checkpoint.watching():
            self.announce(bar)
            try:
                while not self.finished:
                    self.advance(bar)
                    checkpoint.offer(self.tree)
                    if self.broken:
                        return Result.non_finite
            except KeyboardInterrupt:
                checkpoint.save(self.tree())
                return Result.interrupted
        checkpoint.save(self.tree())
        return Result.converged
