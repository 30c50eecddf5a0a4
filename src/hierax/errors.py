"""The exceptions and warnings that Hierax raises.

Every message says what is wrong, why, and what to do about it.
"""

from __future__ import annotations

import contextlib
import contextvars
import sys
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd


class HieraxWarning(UserWarning):
    """A warning of something that does not stop the computation, but that the user should know.

    Examples
    --------
    >>> import warnings
    >>> warnings.simplefilter('always', hx.HieraxWarning)
    """


# The folders whose code is not the user's: Hierax itself, the standard library and all installed packages.
_LIBRARIES = tuple(
    {str(Path(__file__).parent), *(sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib"))}
)
# Whether this thread suppresses the warnings of Hierax. Python's own warning filters would not do, because all threads
# share them: if two threads change and restore them at overlapping times, the changed filters can stay in force.
_quiet = contextvars.ContextVar("quiet", default=False)


def tell(message: str | HieraxWarning) -> None:
    """Issue a text as a :class:`HieraxWarning`, or a given warning, unless this thread suppresses warnings.

    The warning points at the line of the user's code that has called Hierax.
    """
    if not _quiet.get():
        warning = HieraxWarning(message) if isinstance(message, str) else message
        warnings.warn(warning, stacklevel=_users_level())


def _users_level() -> int:
    """Return the ``stacklevel`` at which a warning of the caller points at the innermost line of the user's code."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
        frame, level = frame.f_back, level + 1
    return level


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Suppress every :class:`HieraxWarning` of this thread.

    Analyses that make many fits use it, because their tables say how each fit ended.
    """
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
        One row per oddity: ``code``, ``row``, ``id``, ``column``, ``value``, ``problem``, ``fix``.

    Examples
    --------
    >>> issubclass(hx.DataWarning, hx.HieraxWarning)
    True
    """

    def __init__(self, problems: pd.DataFrame):
        self.problems = problems
        super().__init__(_format(problems, "oddity", "oddities"))


class ModelError(ValueError):
    """The NumPyro program breaks the contract between models and estimators.

    Examples
    --------
    >>> try:
    ...     hx.check(model, pop, plate='patient')
    ... except hx.ModelError as error:
    ...     print('patient' in str(error))
    True
    """


class EstimatorError(ValueError):
    """The estimator cannot treat this program or these data.

    Examples
    --------
    >>> try:
    ...     hx.fit(model, pop, hx.NUTS(), progress=False)
    ... except hx.EstimatorError as error:
    ...     print('needs a prior' in str(error))
    True
    """


class FitError(RuntimeError):
    """A fit failed and ``throw=True`` asked for an exception.

    Examples
    --------
    >>> short = hx.FOCE(optimiser=hx.QuasiNewton(max_iter=1))
    >>> try:
    ...     hx.fit(model, pop, short, progress=False, throw=True)
    ... except hx.FitError as error:
    ...     print('max_iterations' in str(error))
    True
    """


class DataError(ValueError):
    """One or more rows of a data set cannot be read as dosing or observation records.

    Attributes
    ----------
    problems : pandas.DataFrame
        One row per problem: ``code``, ``row``, ``id``, ``column``, ``value``, ``problem``, ``fix``.

    Examples
    --------
    >>> try:
    ...     hx.read_nonmem(pd.DataFrame({'ID': [1], 'TIME': [0.0], 'DV': ['low']}))
    ... except hx.DataError as error:
    ...     print(error.problems['column'].tolist())
    ['DV']
    """

    def __init__(self, problems: pd.DataFrame):
        self.problems = problems
        super().__init__(_format(problems, "problem", "problems"))


def _format(problems: pd.DataFrame, one: str, many: str, shown: int = 40, listed: int = 5) -> str:
    """Return a table of problems as text, in which equal problems share a line, in order of first appearance."""
    count = len(problems)
    lines = [f"{count} {many if count > 1 else one} in the data:"]
    # Rows are compared as text, because one column may hold values of several types.
    alike = problems[["code", "column", "problem", "fix"]].astype(str)
    groups = [problems.loc[rows] for rows in alike.groupby(list(alike.columns), sort=False).groups.values()]
    for group in groups[:shown]:
        lines.append(f"  - {_place(group, listed)}: {group['problem'].iloc[0]} Fix: {group['fix'].iloc[0]}")
    left = sum(len(group) for group in groups[shown:])
    if left:
        lines.append(f"  ... and {left} more.")
    if len(groups) < count:
        lines.append("Every row is in the table `.problems`.")
    return "\n".join(lines)


def _place(group: pd.DataFrame, listed: int) -> str:
    """Return where equal problems are: the first one in full, then the rows and values of the others."""
    first = group.iloc[0]
    place = [f"{name} {value}" for name, value in (("row", first["row"]), ("ID", first["id"])) if value != ""]
    place += [f"column {first['column']}"] if first["column"] != "" else []
    place += [f"value {first['value']!r}"] if first["value"] != "" else []
    if len(group) == 1:
        return ", ".join(place)
    rows, ids = group["row"].tolist()[1:], group["id"].astype(str).nunique()
    values = list(dict.fromkeys(repr(value) for value in group["value"]))[1:]
    more = f"; then row{'s' * (len(rows) > 1)} {_some(rows, listed)}" + (
        f"; other values {_some(values, listed)}" if values else ""
    )
    subjects = f" of {ids} subjects" if ids > 1 else ""
    return f"{len(group)} rows{subjects} (first: {', '.join(place)}{more})"


def _some(items: Sequence[object], listed: int) -> str:
    """Return the first ``listed`` items as text, and how many further items there are."""
    beyond = f", ... ({len(items) - listed} more)" if len(items) > listed else ""
    return ", ".join(str(item) for item in items[:listed]) + beyond
