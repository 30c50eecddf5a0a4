"""Files of arrays and JSON, written all or nothing; reading a damaged or foreign file raises one kind of error."""

from __future__ import annotations

import io
import json
import os
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# A file is refused if it would unpack to more bytes than this ...
_MODEST = 256 * 2**20
# ... and also to more than this many times its own size, because no fit of ours can be compressed so far.
_RATIO = 100


class Kind(NamedTuple):
    """What a file is, and what its two members are called."""

    name: str
    meta: str
    arrays: str
    advice: str


# The kinds of files, each with the advice that an error message gives.
CHECKPOINT = Kind(
    "checkpoint", "checkpoint.json", "state.npz", "Pass another checkpoint=, or delete the file if nobody needs it."
)
FIT = Kind("saved fit", "fit.json", "arrays.npz", "Pass a file that Fit.save wrote, or fit again.")


def read_archive(path: Path, kind: Kind) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the JSON and the arrays of a file.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is damaged, empty, of another program, or would unpack to far more than its own size.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}, so that no {kind.name} can be read. Check the path.")
    try:
        with zipfile.ZipFile(path) as file:
            _refuse_bombs(file, path.stat().st_size)
            meta = json.loads(file.read(kind.meta))
            packed = file.read(kind.arrays)
        with zipfile.ZipFile(io.BytesIO(packed)) as inner:
            _refuse_bombs(inner, path.stat().st_size)
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        if not isinstance(meta, dict):
            raise TypeError("its description is no mapping")
    except Exception as error:  # All errors of a damaged file (bad zip, CRC, key, JSON, header) become one message.
        reason = "it is empty" if not path.is_dir() and path.stat().st_size == 0 else f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is not a {kind.name} of Hierax, or it is damaged ({reason}). {kind.advice}") from None
    return meta, found


def write_archive(path: Path, kind: Kind, meta: Mapping[str, Any], arrays: Mapping[str, Any], *, packed: bool) -> None:
    """Write a file all or nothing: first under a name beside it that no other process uses, then renamed."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    part = path.with_name(f"{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as file:
            file.writestr(kind.meta, json.dumps(meta, indent=1))
            file.writestr(kind.arrays, buffer.getvalue())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def try_folder(path: Path, argument: str) -> None:
    """Refuse a path that nothing can be written to, before any work is done for it.

    Raises
    ------
    ValueError
        The path is a folder, its folder does not exist, or it cannot be written to.
    """
    if path.is_dir():
        raise ValueError(f"{argument}={str(path)!r} is a folder, but a file is needed. Add a file name.")
    if not path.parent.is_dir():
        raise ValueError(
            f"{argument}={str(path)!r} cannot be written, because the folder {path.parent} does not exist. Create it, "
            f"or correct the path."
        )
    trial = path.with_name(f"{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
    try:
        trial.write_bytes(b"")
        trial.unlink()
    except OSError as error:
        raise ValueError(
            f"{argument}={str(path)!r} cannot be written ({error.strerror}). Pass a path that you may write."
        ) from None
    if path.exists() and not os.access(path, os.W_OK):
        raise ValueError(f"{argument}={str(path)!r} is read-only. Pass another path, or allow it to be written.")


def _refuse_bombs(file: zipfile.ZipFile, size: int) -> None:
    """Refuse an archive whose headers say that it would unpack to far more than its own size."""
    unpacked = sum(member.file_size for member in file.infolist())
    if unpacked > max(_MODEST, _RATIO * size):
        raise ValueError(f"{size / 2**20:.1f} MiB would unpack to {unpacked / 2**30:.1f} GiB")
