"""The state of a long fit on disk: written atomically, read back by the same fit alone."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hierax.errors import tell
from hierax.infer.run.archive import CHECKPOINT, read_archive, try_folder, write_archive
from hierax.infer.run.lock import held
from hierax.infer.run.owner import both_digests, differences

# The format of the files; a file of another format is refused.
FORMAT = 2


@dataclasses.dataclass
class Checkpoint:
    """Where the state of a fit is kept, if anywhere.

    Parameters
    ----------
    path : path, optional
        The file; None keeps nothing.
    every : float
        Seconds between two writings.
    resume : bool
        Whether to go on from the file where it exists.
    owner : dict
        What the state belongs to, as text by name: another fit's file is refused.
    """

    path: Path | None = None
    every: float = 60.0
    resume: bool = True
    owner: dict[str, str] = dataclasses.field(default_factory=dict)
    written: float = dataclasses.field(default_factory=time.monotonic)
    told: bool = False

    def load(self, template: Any) -> Any:
        """Return the saved state in the structure of ``template``, or None where there is none.

        Raises
        ------
        ValueError
            The file belongs to another fit, and the message says item by item what differs; or it is no checkpoint.
        """
        if self.path is None or not self.resume or not self.path.exists():
            return None
        meta, arrays = read_archive(self.path, CHECKPOINT)
        self._compare(meta)
        leaves = [arrays[f"leaf{index}"] for index in range(len(arrays))]
        shapes, tree = jax.tree.flatten(template)
        if tree.num_leaves != len(leaves):
            raise ValueError(
                f"The checkpoint {self.path} holds {len(leaves)} arrays, and this fit has {tree.num_leaves}, because "
                f"another version wrote it. Delete the file, or pass resume=False."
            )
        keys = [jax.dtypes.issubdtype(shape.dtype, jax.dtypes.prng_key) for shape in shapes]
        leaves = [jax.random.wrap_key_data(jnp.asarray(x)) if key else x for x, key in zip(leaves, keys, strict=True)]
        return jax.tree.unflatten(tree, leaves)

    def _compare(self, meta: dict[str, Any]) -> None:
        if meta.get("format") != FORMAT:
            raise ValueError(
                f"The checkpoint {self.path} has format {meta.get('format')}, and this version reads {FORMAT}. Pass "
                f"another checkpoint=, or resume=False to start anew."
            )
        saved = meta["owner"]
        found = differences(saved, self.owner)
        if found:
            raise ValueError(
                f"The checkpoint {self.path} is another fit's, because these differ: {'; '.join(found)} "
                f"({both_digests(saved, self.owner)}). Pass the same arguments to go on with it, another checkpoint=, "
                f"or resume=False to start anew."
            )

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Make sure that states can be written before any work is done, and let no other fit write them meanwhile.

        Raises
        ------
        ValueError
            The path cannot be written, another fit holds it, or what lies there is no checkpoint.
        """
        if self.path is None:
            yield
            return
        try_folder(self.path, "checkpoint")
        if self.path.exists():
            # A file that is not a checkpoint is somebody else's: reading it raises before it could be written over.
            read_archive(self.path, CHECKPOINT)
        with held(self.path):
            yield

    def offer(self, state: Callable[[], Any]) -> None:
        """Write the state if the last writing is long enough ago."""
        if self.path is not None and time.monotonic() - self.written >= self.every:
            self.save(state())

    def save(self, state: Any) -> None:
        """Write the state now, all or nothing."""
        if self.path is None:
            return
        arrays: dict[str, Any] = {f"leaf{index}": _plain(leaf) for index, leaf in enumerate(jax.tree.leaves(state))}
        meta = {"format": FORMAT, "owner": self.owner}
        try:
            write_archive(self.path, CHECKPOINT, meta, arrays, packed=False)
        except OSError as error:
            self._failed(error)
        self.written = time.monotonic()

    def _failed(self, error: OSError) -> None:
        """Warn once that states cannot be written, and let the fit go on, which is worth more than its checkpoint."""
        if not self.told:
            self.told = True
            tell(
                f"The checkpoint {self.path} cannot be written ({error.strerror or error}), and the fit goes on "
                f"without it. If it is interrupted, it resumes from the last state that was written, or starts anew.",
            )

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Let SIGTERM end the work inside as Ctrl-C does (KeyboardInterrupt), so that the caller can write its state.

        Nothing is changed where no state is kept, or outside the main thread, where Python allows no signal handlers.
        """
        if self.path is None or threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGTERM, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def _plain(leaf: Any) -> np.ndarray:
    is_key = isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)
