"""A lock file, which says which process is writing another file."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a path by a lock file beside it, ``path.lock``, which says which process holds it.

    Raises
    ------
    ValueError
        Another fit holds the path: a process of this machine that is still running, or any of another machine.
    """
    lock = path.with_name(path.name + ".lock")
    _take(lock, path)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _take(lock: Path, path: Path) -> None:
    mine = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    for _ in range(2):
        try:
            with lock.open("x") as file:
                json.dump(mine, file)
            return
        except FileExistsError:
            holder = _holder(lock)
            if holder is None or (holder.get("host") == mine["host"] and not _lives(holder.get("process"))):
                # The process that held the lock was killed before it could remove it.
                lock.unlink(missing_ok=True)
                continue
            raise ValueError(
                f"The checkpoint {path} is held by process {holder.get('process')} on {holder.get('host')} since "
                f"{holder.get('since')}, and two fits would overwrite each other's state. Wait for it, pass another "
                f"checkpoint=, or delete {lock} if that process is gone."
            ) from None
    raise ValueError(f"The lock {lock} cannot be taken: other processes take it again and again. Pass another path.")


def _holder(lock: Path) -> dict[str, object] | None:
    """Return who holds a lock, or None where its file cannot be read."""
    try:
        found = json.loads(lock.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _lives(process: object) -> bool:
    if not isinstance(process, int):
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
