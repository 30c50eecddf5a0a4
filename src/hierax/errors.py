"""The exceptions and warnings that Hierax raises.

Every message says what is wrong, why, and what to do about it.
"""

from __future__ import annotations

import pandas as pd


class HieraxWarning(UserWarning):
    """Something that does not stop the work but that the user should know."""


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
        super().__init__(_format(problems))


def _format(problems: pd.DataFrame, shown: int = 20) -> str:
    count = len(problems)
    lines = [f"{count} problem{'s' if count > 1 else ''} in the data:"]
    for problem in problems.head(shown).itertuples():
        place = [f"{name} {value}" for name, value in (("row", problem.row), ("ID", problem.id)) if value != ""]
        place += [f"column {problem.column}"] if problem.column != "" else []
        place += [f"value {problem.value!r}"] if problem.value != "" else []
        lines.append(f"  - {', '.join(place)}: {problem.problem} Fix: {problem.fix}")
    if count > shown:
        lines.append(f"  ... and {count - shown} more; all of them are in the exception's `.problems` table.")
    return "\n".join(lines)
