"""Reading the arguments of a command: estimators, models, data, start values and priors."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hierax.cli.errors import plain_errors

if TYPE_CHECKING:
    from hierax.data.population import Population


def named_estimator(name: str, options: list[str] | None = None) -> Any:
    """Return the estimator that a name on the command line stands for, with its options."""
    import hierax as hx
    from hierax.infer.method import COMMANDS

    key = name.lower()
    given = {option: literal(value) for option, value in pairs(options, "--option").items()}
    if key.startswith("agq") and key[3:].isdigit():
        return hx.AGQ(int(key[3:]), **given)
    if key not in COMMANDS:
        kinds = {known: kind.maturity for known, (kind, _) in sorted(COMMANDS.items())}
        names = [known if level == "stable" else f"{known} ({level})" for known, level in kinds.items()]
        raise typer.BadParameter(f"The estimator {name!r} is not known. Use one of {', '.join(names)}, or agqN (agq5).")
    kind, own = COMMANDS[key]
    with plain_errors():
        return kind(**{**own, **given})


def literal(text: str) -> Any:
    """Return the Python literal that a text spells, or the text itself where it spells none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def start_values(given: list[str] | None) -> dict[str, Any] | None:
    """Return the start values that words such as ``cl=3`` or ``omega=0.3,0.2`` give, or None without any."""
    out = {}
    for name, text in pairs(given, "--init").items():
        value = literal(text)
        if isinstance(value, str):
            raise typer.BadParameter(
                f"--init {name}={text} must give a number, or numbers with commas between them. Write {name}=0.5, or "
                f"{name}=0.5,0.2."
            )
        out[name] = list(value) if isinstance(value, tuple) else value
    return out or None


def named_in(spec: str, what: str) -> tuple[Path, str]:
    """Return the file and the name in ``FILE.py:name``; ``what`` says in messages what the name stands for."""
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if not name or not path.is_file():
        raise typer.BadParameter(f"{spec!r} must have the form FILE.py:{what}, with a file that exists.")
    return path, name


def load_object(spec: str, what: str) -> Any:
    """Execute a Python file and return the object that has a given name in it."""
    path, name = named_in(spec, what)
    module = _module(path)
    if not hasattr(module, name):
        kinds = dict if what == "priors" else object
        named = [
            key
            for key, value in vars(module).items()
            if not key.startswith("_") and (callable(value) or isinstance(value, kinds)) and not isinstance(value, type)
        ]
        names = [key for key in named if what == "priors" or callable(getattr(module, key))]
        raise typer.BadParameter(f"{path} has no {name!r}; it has {', '.join(names)}.")
    return getattr(module, name)


def _module(path: Path) -> Any:
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path.resolve()):
        return known
    loader = importlib.util.spec_from_file_location(path.stem, path.resolve())
    assert loader is not None
    assert loader.loader is not None
    module = importlib.util.module_from_spec(loader)
    sys.path.insert(0, str(path.parent.resolve()))
    with plain_errors(path):
        try:
            loader.loader.exec_module(module)
        except SystemExit as error:
            raise typer.BadParameter(
                f"{path} ends the program (exit code {error.code}) when it is executed. Put what it runs as a script "
                f"under `if __name__ == '__main__':`."
            ) from None
    return module


def load_data(
    data: Path,
    column: list[str] | None,
    endpoint: list[str] | None,
    covariate: list[str] | None,
    interpolation: str | None,
    na: list[str] | None,
    decimal: str,
    evid: str,
    restarts: str | None,
) -> Population:
    """Read the data table that a command line names, with the reading options that its flags give."""
    import hierax as hx

    if not data.is_file():
        raise typer.BadParameter(f"{data} is not a file.")
    missing = _codes(na)
    with plain_errors():
        return hx.read_nonmem(
            data,
            columns=pairs(column, "--column"),
            endpoints=pairs(endpoint, "--endpoint") or None,
            covariates=covariate or [],
            interpolation=interpolation,
            na=missing,
            decimal=decimal,
            evid=evid,
            restarts=restarts,
        )


def _codes(given: list[str] | None) -> Any:
    """Return the codes of missing values: a list for all columns, or a mapping where columns are named."""
    named = [text for text in given or [] if "=" in text]
    if not named:
        return [_value(text) for text in given or []] or None
    if len(named) < len(given or []):
        raise typer.BadParameter("--na names a column for some codes and none for others. Name a column for each.")
    found: dict[str, list[Any]] = {}
    for text in named:
        column, code = text.split("=", 1)
        found.setdefault(column, []).append(_value(code))
    return found


def _value(text: str) -> Any:
    """Return a word as a number if it is one, else as it is."""
    try:
        return float(text)
    except ValueError:
        return text


def pairs(given: list[str] | None, flag: str) -> dict[str, str]:
    """Return ``NAME=VALUE`` words as a mapping."""
    wrong = [text for text in given or [] if "=" not in text]
    if wrong:
        raise typer.BadParameter(f"{flag} {' '.join(wrong)} should be NAME=VALUE.")
    return dict(text.split("=", 1) for text in given or [])
