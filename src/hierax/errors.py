"""The exceptions and warnings that Hierax raises.

Every message says what is wrong, why, and what to do about it.
"""

from __future__ import annotations

import contextlib
import contextvars
import warnings
from collections.abc import Iterator

import pandas as pd


class HieraxWarning(UserWarning):
    """Something that does not stop the work but that the user should know."""


# Whether fits of this thread keep what they have to say to themselves. The warnings filters of Python are one for all
# threads: setting them aside in one thread and back in another leaves them set aside.
_quiet = contextvars.ContextVar("quiet", default=False)


def tell(message: str, stacklevel: int = 2) -> None:
    """Warn by a :class:`HieraxWarning`, unless this thread is to be quiet."""
    if not _quiet.get():
        warnings.warn(message, HieraxWarning, stacklevel=stacklevel + 1)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Let no :class:`HieraxWarning` of this thread through: how each of many fits ended is in a table."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


class DataWarning(HieraxWarning):
    """Something in a data set is odd, but can be read.

    Attributes
    ----------
    problems : pandas.DataFrame
        One row an oddity: ``code``, ``row``, ``id``, ``column``, ``value``, ``problem``, ``fix``.
    """

    def __init__(self, problems: pd.DataFrame):
        self.problems = problems
        super().__init__(_format(problems, "oddity", "oddities"))


class ModelError(ValueError):
    """The NumPyro program breaks the contract between models and estimators."""


class EstimatorError(ValueError):
    """The estimator cannot treat this program or these data."""


class FitError(RuntimeError):
    """A fit failed and ``throw=True`` asked for an exception."""


class DataError(ValueError):
    """One or more rows of a data set cannot be read as dosing or observation records.

    Attributes
    ----------
    problems : pandas.DataFrame
        One row a problem: ``code``, ``row``, ``id``, ``column``, ``value``, ``problem``, ``fix``.
    """

    def __init__(self, problems: pd.DataFrame):
        self.problems = problems
        super().__init__(_format(problems, "problem", "problems"))


def _format(problems: pd.DataFrame, one: str, many: str, shown: int = 40, alike: int = 5) -> str:
    """Write a table of problems as text: in the order of rows, ``alike`` of each kind and ``shown`` in all."""
    count = len(problems)
    lines = [f"{count} {many if count > 1 else one} in the data:"]
    number = problems.groupby(["code", "column"]).cumcount()
    for problem in problems[number < alike].head(shown).itertuples():
        place = [f"{name} {value}" for name, value in (("row", problem.row), ("ID", problem.id)) if value != ""]
        place += [f"column {problem.column}"] if problem.column != "" else []
        place += [f"value {problem.value!r}"] if problem.value != "" else []
        lines.append(f"  - {', '.join(place)}: {problem.problem} Fix: {problem.fix}")
    left = count - len(lines) + 1
    if left:
        lines.append(f"  ... and {left} more; all of them are in the table `.problems`.")
    return "\n".join(lines)
