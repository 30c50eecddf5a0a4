"""Covariates: cleaning, categories, missing values, vectors, and whether they vary."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from hierax.data.checking.problems import Problems
from hierax.data.checking.remedies import MISSING_CODES
from hierax.data.named import ENDPOINT_CODES, OCCASION_LEVELS
from hierax.data.reading.columns import is_number, refuse_underscores, to_numbers

# The rules of interpolation and the policies for missing values that a user can name.
INTERPOLATIONS = ("locf", "nocb", "linear", "midpoint")
POLICIES = ("error", "carry", "median")


@dataclasses.dataclass(frozen=True)
class CovariateSpec:
    """What to keep as covariates, and how.

    Attributes
    ----------
    names : tuple of str
        Columns that are covariates by themselves.
    categorical : tuple of str
        Those of them that are categories although they are numbers.
    vectors : dict
        Name → the columns that make up a vector.
    interpolation : str or None
        Rule for the values between records where a covariate varies.
    missing : dict
        Name → policy for missing values: ``"error"``, ``"carry"``, ``"median"``, or the value to put.
    levels : dict
        Category → its labels in the order of their codes, where they were given.
    """

    names: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    vectors: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    interpolation: str | None = None
    missing: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    levels: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read, scalars first."""
        return (*self.names, *(column for columns in self.vectors.values() for column in columns))


def covariate_spec(
    covariates: str | Iterable[str],
    categorical: str | Iterable[str] | Mapping[str, Iterable[Any]],
    vectors: Mapping[str, Iterable[str]] | None,
    interpolation: str | None,
    missing: Any,
) -> CovariateSpec:
    """Check the arguments about covariates, and gather them in one specification.

    Raises
    ------
    ValueError
        An unknown interpolation or policy, or a name that is no covariate.
    """
    if isinstance(categorical, Mapping):
        # A user may pass the labels of a population, which also hold the codes of endpoints and the levels of OCC.
        ours = (ENDPOINT_CODES, OCCASION_LEVELS)
        categorical = {name: labels for name, labels in categorical.items() if name not in ours}
    names = (covariates,) if isinstance(covariates, str) else tuple(covariates)
    codes = (categorical,) if isinstance(categorical, str) else tuple(categorical)
    # Categories are covariates, so that they need not be named in both arguments.
    names = tuple(dict.fromkeys(names + codes))
    groups = {name: tuple(columns) for name, columns in (vectors or {}).items()}
    refuse_underscores((*names, *groups))
    _check_groups(names, groups)
    if interpolation is not None and interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"interpolation={interpolation!r} must be one of {list(INTERPOLATIONS)}. NONMEM's rule is 'nocb' (the "
            f"value of the record that ends an interval), the default of Monolix and nlmixr2 is 'locf'."
        )
    spec = CovariateSpec(names, codes, groups, interpolation, {})
    policies = dict(missing) if isinstance(missing, Mapping) else dict.fromkeys(spec.columns, missing)
    unknown = sorted(set(policies) - set(spec.columns))
    if unknown:
        raise ValueError(f"missing= names {unknown}, which are no covariates; those are {list(spec.columns)}.")
    for name, policy in policies.items():
        if isinstance(policy, str) and policy not in POLICIES and name not in codes:
            raise ValueError(
                f"missing={policy!r} for {name} must be one of {list(POLICIES)}, or a number to put in the place of "
                f"missing values."
            )
    levels = {}
    if isinstance(categorical, Mapping):
        levels = {name: tuple(_plain(label) for label in given) for name, given in categorical.items()}
    twice = {name: given for name, given in levels.items() if len(set(given)) < len(given)}
    if twice:
        raise ValueError(f"categorical={twice} has a label twice. Give each label once, in the order of their codes.")
    return dataclasses.replace(spec, missing=policies, levels=levels)


def _check_groups(names: tuple[str, ...], groups: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse vectors whose name, or whose columns in a table written by ``to_frame``, are those of other covariates."""
    written = {f"{name}_{index + 1}" for name, columns in groups.items() for index in range(len(columns))}
    both = sorted(set(names) & (set(groups) | written))
    if both:
        raise ValueError(
            f"vectors={list(groups)} would give the covariates {both} the name of another column, because the "
            f"columns of a vector e are written back as e_1, e_2, .... Give the vector another name."
        )


def clean_covariates(frame: pd.DataFrame, spec: CovariateSpec, problems: Problems) -> dict[str, tuple[Any, ...]]:
    """Check covariates in place; replace categories by codes and return their labels."""
    labels: dict[str, tuple[Any, ...]] = {}
    for name in spec.columns:
        numbers, missing = to_numbers(frame[name])
        # Complex numbers count as numbers here, so that they are refused below and not read as categories.
        said = is_number(frame[name])[~missing]
        # A column of text whose only numbers are codes of missing values is still a category.
        coded = not said.all() and numbers[~missing][said].isin(MISSING_CODES).all()
        numeric = frame[name].dtype.kind in "fiucm" or (said.any() and not coded) or missing.all()
        category = name in spec.categorical or not numeric
        if not category:
            _refuse_text(frame, name, numbers.isna() & ~missing, problems)
        values = frame[name].astype(object).where(~missing) if category else numbers
        values = _fill(values, frame["ID"], spec.missing.get(name, "error"), category)
        problems.add_rows(
            "missing_covariate",
            frame,
            values.isna() & missing,
            name,
            "the covariate is missing here, and a missing value is not a number.",
            "fill it in, drop it from covariates=, or say how with missing=: 'carry' (from the subject's other "
            "records), 'median' or a value.",
        )
        if category:
            found = sorted({_plain(value) for value in values.dropna()}, key=_order)
            labels[name] = spec.levels.get(name, tuple(found))
            codes = {value: code for code, value in enumerate(labels[name])}
            coded = values.map(lambda value, codes=codes: codes.get(_plain(value)), na_action="ignore").astype(float)
            problems.add_rows(
                "unknown_category",
                frame,
                coded.isna() & values.notna(),
                name,
                f"this is none of the labels that were given: {list(labels[name])}.",
                "add it to categorical=, at the end so that the other codes stay.",
            )
            values = coded
        frame[name] = values
    _check_variation(frame, spec, problems, labels)
    return labels


def _refuse_text(frame: pd.DataFrame, name: str, bad: pd.Series, problems: Problems) -> None:
    problems.add_rows(
        "covariate_text",
        frame,
        bad,
        name,
        f"{name} is a number in other rows.",
        "write a finite number; or, for categories, name it in categorical=.",
    )


def _plain(value: Any) -> Any:
    """Return a category as it is shown: whole numbers without their fraction, text without blanks around it."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return int(value)
    return value.strip() if isinstance(value, str) else value.item() if isinstance(value, np.generic) else value


def _order(value: Any) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))


def _fill(values: pd.Series, ids: pd.Series, policy: Any, category: bool) -> pd.Series:
    """Return the values with missing ones filled in by a policy."""
    if isinstance(policy, str) and policy == "error":
        return values
    if isinstance(policy, str) and policy == "carry":
        by = values.groupby(ids, sort=False)
        forward = by.ffill()
        return forward.groupby(ids, sort=False).bfill()
    if isinstance(policy, str) and policy == "median":
        # The median is over one value per subject, so that subjects with many records do not count more. A subject
        # that has a value on some record is filled from that.
        own = values.groupby(ids, sort=False).first().dropna()
        if not len(own):
            return values
        return _fill(values, ids, "carry", category).fillna(own.mode().iloc[0] if category else float(own.median()))
    return values.fillna(policy)


def _check_variation(
    frame: pd.DataFrame, spec: CovariateSpec, problems: Problems, labels: Mapping[str, tuple[Any, ...]]
) -> None:
    """Refuse covariates that vary within a subject without an interpolation, and vectors that vary at all."""
    vector_columns = {column for columns in spec.vectors.values() for column in columns}
    same = frame["_code"].eq(frame["_code"].shift())
    for name in spec.columns:
        change = same & frame[name].ne(frame[name].shift()) & frame[name].notna() & frame[name].shift().notna()
        if not change.any():
            continue
        first = np.zeros(len(frame), bool)
        first[int(np.argmax(change.to_numpy()))] = True
        shown = frame[name].map(dict(enumerate(labels[name]))) if name in labels else frame[name]
        if name in vector_columns:
            problems.add_rows(
                "vector_varies",
                frame,
                first,
                name,
                f"the vector covariate changes within a subject ({int(change.sum())} times in all), but it must be "
                f"constant, of shape (subject, 1, k).",
                "give one vector a subject.",
                shown=shown,
            )
        elif spec.interpolation is None:
            problems.add_rows(
                "covariate_varies",
                frame,
                first,
                name,
                f"the covariate changes within a subject ({int(change.sum())} times in all), but no rule says which "
                f"value holds between records{_spelt_alike(shown[change].iloc[0], shown.shift()[change].iloc[0])}.",
                "name interpolation='nocb' (NONMEM), 'locf' (Monolix, nlmixr2), 'midpoint' or 'linear'.",
                shown=shown,
            )


def _spelt_alike(now: Any, before: Any) -> str:
    """Return a hint if two consecutive categories differ in capital letters only."""
    alike = isinstance(now, str) and isinstance(before, str) and now.casefold() == before.casefold()
    return f" (before, it is {before!r}: if {before!r} and {now!r} are one category, write them alike)" if alike else ""
