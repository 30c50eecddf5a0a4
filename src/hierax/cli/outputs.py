"""The results of a command: their folder is checked before the fit, and they are written so that nothing is lost."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from hierax.results.fit import Fit

# The files that a fit is written to.
FILES = ("fit.hierax", "parameters.csv", "table.csv", "history.csv", "report.html")
# Exit codes by which a script can tell a fit that has not converged or was interrupted from one that failed.
NOT_CONVERGED, INTERRUPTED = 3, 130


def open_folder(out: Path, force: bool) -> None:
    """Make the folder of the results before any work is done, and refuse to overwrite results unless forced."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise typer.BadParameter(
            f"--out {out} cannot be written ({error.strerror}). Name a folder that can be made and written to."
        ) from None
    there = [name for name in FILES if (out / name).exists()]
    if there and not force:
        raise typer.BadParameter(
            f"--out {out} holds results already ({', '.join(there)}). Name another folder, or pass --force to write "
            f"over them."
        )


def deliver(fit: Fit, out: Path, title: str) -> None:
    """Write the results of a fit into a folder, the fit itself first, and print the summary."""
    import hierax as hx
    from hierax.results.tables.spreadsheet import write_csv

    out = _saved(fit, out)
    written: list[str] = ["fit.hierax"]
    # If one of the files cannot be written, the fit is already saved, and the other files are still written.
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        summary = _try(fit.summary, "the summary")
        print(f"\n{summary if summary is not None else fit}\n")
        outputs: dict[str, Callable[[], Any]] = {
            "parameters.csv": lambda: None if summary is None else write_csv(summary, out / "parameters.csv"),
            "table.csv": lambda: write_csv(fit.table(), out / "table.csv", index=False),
            "history.csv": lambda: write_csv(fit.history, out / "history.csv", index=False),
            "report.html": lambda: hx.report(fit, out / "report.html", title=title),
        }
        for name, write in outputs.items():
            _try(write, name)
            written += [name] if (out / name).exists() else []
    seconds = f"{fit.timing['total']:.1f} s, of which compilation {fit.timing['compile']:.1f} s"
    report = f"Report: {out / 'report.html'}\n" if "report.html" in written else ""
    print(f"Fitted in {seconds}.\n{report}In {out}/: {', '.join(written)}")


def exit_code(fit: Fit) -> int:
    """Return the exit code: 0 where the fit converged, 130 where it was interrupted, otherwise 3."""
    from hierax.infer.result import Result

    return {Result.converged: 0, Result.interrupted: INTERRUPTED}.get(fit.result, NOT_CONVERGED)


def _saved(fit: Fit, out: Path) -> Path:
    """Save a fit and return its folder: the given one, or a new temporary one where that cannot be written to."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        fit.save(out / "fit.hierax")
        return out
    except OSError as error:
        other = Path(tempfile.mkdtemp(prefix="hierax-fit-"))
        fit.save(other / "fit.hierax")
        typer.secho(f"{out} cannot be written ({error.strerror}); the results are in {other}.", fg="red", err=True)
        return other


def _try(what: Callable[[], Any], name: str) -> Any:
    """Return the result of a step that may fail without stopping the command; print why where it does."""
    try:
        return what()
    except Exception as error:
        if "HIERAX_TRACEBACK" in os.environ:
            raise
        typer.secho(f"{name} could not be made ({type(error).__name__}: {error}).", fg="red", err=True)
        return None
