"""Error reports of the command line: a sentence, the lines of the user's model, or a whole traceback."""

from __future__ import annotations

import linecache
import os
import re
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

import typer

from hierax.errors import DataError, EstimatorError, FitError, ModelError

_PACKAGE = Path(__file__).resolve().parent.parent
# Arguments of the Python functions that messages name, and the flags that stand for them on the command line.
_FLAGS = {
    "priors": "--priors",
    "init": "--init",
    "fixed": "--fixed",
    "checkpoint": "--checkpoint",
    "seed": "--seed",
    "starts": "--starts",
    "columns": "--column",
    "covariates": "--covariate",
    "endpoints": "--endpoint",
    "interpolation": "--interpolation",
    "plate": "--plate",
    "na": "--na",
    "decimal": "--decimal",
    "evid": "--evid",
    "restarts": "--restarts",
}


class plain_errors:
    """Prints, instead of a traceback, the message of an expected error, and the model's lines for an error in a model.

    Any other error is a fault of this library and keeps its traceback. If the environment variable
    ``HIERAX_TRACEBACK`` is set, all errors keep theirs.
    """

    def __init__(self, model: Path | None = None):
        self.model = None if model is None else model.resolve()

    def __enter__(self) -> plain_errors:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, where: TracebackType | None) -> None:
        if not isinstance(error, Exception) or isinstance(error, typer.Exit | typer.BadParameter):
            return
        if type(error).__module__.split(".")[0] in ("click", "typer") or "HIERAX_TRACEBACK" in os.environ:
            return
        if isinstance(error, SyntaxError) and self.model and Path(str(error.filename)).resolve() == self.model:
            typer.secho("".join(traceback.format_exception_only(error)), fg="red", err=True, nl=False)
            raise typer.Exit(1) from None
        lines = self._of_model(where)
        if not (lines or _ours(error, where)):
            typer.secho("This is a fault of hierax. Please report it, with these lines:", fg="red", err=True)
            return
        text = in_flags(str(error)) if _ours(error, where) else f"{type(error).__name__}: {error}"
        if lines:
            typer.echo("The model raised an error:\n" + "".join(traceback.format_list(lines)), err=True, nl=False)
        typer.secho(text, fg="red", err=True)
        raise typer.Exit(1) from None

    def _of_model(self, where: TracebackType | None) -> list[traceback.FrameSummary]:
        """Return the frames of a traceback that are in the model's file."""
        if self.model is None:
            return []
        return [frame for frame in traceback.extract_tb(where) if Path(frame.filename).resolve() == self.model]


def in_flags(message: str) -> str:
    """Return a message with the flags of the command line in place of Python's arguments."""
    message = re.sub(r"\bresume=False\b", "--no-resume", message)
    names = "|".join(_FLAGS)
    message = re.sub(rf"(?:hx\.)?\b(?:fit|read_nonmem)\((?=(?:{names})=)", "(", message)
    # First the arguments that are followed by a value, then those that stand alone.
    message = re.sub(rf"(?<![\w-])({names})=(?=[\w'\"\[{{(-])", lambda found: f"{_FLAGS[found[1]]} ", message)
    return re.sub(rf"(?<![\w-])({names})=", lambda found: _FLAGS[found[1]], message)


def _ours(error: BaseException, where: TracebackType | None) -> bool:
    """Return whether this library raised an error on purpose: one of its own classes, or by a ``raise`` in its code."""
    if isinstance(error, DataError | EstimatorError | FitError | ModelError):
        return True
    frames = traceback.extract_tb(where)
    if not frames or not isinstance(error, ValueError | KeyError | FileNotFoundError | TypeError):
        return False
    last = frames[-1]
    inside = _PACKAGE in Path(last.filename).resolve().parents
    return inside and linecache.getline(last.filename, last.lineno or 0).lstrip().startswith("raise ")
