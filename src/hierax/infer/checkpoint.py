"""The state of a long fit on disk: written atomically, read back by the same fit alone."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

FORMAT = 1


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

    def load(self, template: Any) -> Any:
        """Return the saved state in the structure of ``template``, or None where there is none.

        Raises
        ------
        ValueError
            The file belongs to another fit; names what differs.
        """
        if self.path is None or not self.resume or not self.path.exists():
            return None
        with zipfile.ZipFile(self.path) as file:
            meta = json.loads(file.read("checkpoint.json"))
            with np.load(io.BytesIO(file.read("state.npz")), allow_pickle=False) as arrays:
                leaves = [arrays[f"leaf{index}"] for index in range(len(arrays.files))]
        self._compare(meta)
        shapes, tree = jax.tree.flatten(template)
        if tree.num_leaves != len(leaves):
            raise ValueError(
                f"The checkpoint {self.path} holds {len(leaves)} arrays, and this fit has {tree.num_leaves}, because "
                f"another version wrote it. Delete the file, or pass resume=False."
            )
        keys = [jax.dtypes.issubdtype(shape.dtype, jax.dtypes.prng_key) for shape in shapes]
        leaves = [jax.random.wrap_key_data(x) if key else x for x, key in zip(leaves, keys, strict=True)]
        return jax.tree.unflatten(tree, leaves)

    def _compare(self, meta: dict[str, Any]) -> None:
        saved = meta["owner"] if meta.get("format") == FORMAT else {}
        other = sorted(name for name in self.owner.keys() | saved.keys() if self.owner.get(name) != saved.get(name))
        if other:
            raise ValueError(
                f"The checkpoint {self.path} is another fit's, because these differ: {', '.join(other)}. Pass the same "
                f"arguments to go on with it, another checkpoint=, or resume=False to start anew."
            )

    def offer(self, state: Callable[[], Any]) -> None:
        """Write the state if the last writing is long enough ago."""
        if self.path is not None and time.monotonic() - self.written >= self.every:
            self.save(state())

    def save(self, state: Any) -> None:
        """Write the state now, all or nothing."""
        if self.path is None:
            return
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {f"leaf{index}": _plain(leaf) for index, leaf in enumerate(jax.tree.leaves(state))}
        np.savez(buffer, **arrays)
        part = self.path.with_name(self.path.name + ".part")
        with zipfile.ZipFile(part, "w") as file:
            file.writestr("checkpoint.json", json.dumps({"format": FORMAT, "owner": self.owner}, indent=1))
            file.writestr("state.npz", buffer.getvalue())
        part.replace(self.path)
        self.written = time.monotonic()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Let SIGTERM end a fit as Ctrl-C does, so that its state is written."""
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


def describe(thing: Any) -> str:
    """Return an estimator's options as text that is the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(thing))
