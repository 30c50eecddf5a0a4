"""Mappings of a population whose errors list the known names, and a placeholder for ids in compiled functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import jax

from hierax.errors import tell

if TYPE_CHECKING:
    from hierax.data.population import Population


# Keys of ``Population.labels`` that are not covariates: behind them are the codes of the endpoints in the table, and
# the levels of OCC.
ENDPOINT_CODES, OCCASION_LEVELS = "endpoint codes", "occasion levels"


class Named(dict[str, Any]):
    """Arrays by name; the error for an unknown name lists the known ones."""

    def __missing__(self, name: str) -> Any:
        raise KeyError(
            f"'{name}' is not in the population, which has {list(self)}. "
            f"Name covariates with read_nonmem(covariates=...)."
        )


jax.tree_util.register_pytree_with_keys(
    Named,
    lambda named: ([(jax.tree_util.DictKey(name), named[name]) for name in sorted(named)], tuple(sorted(named))),
    lambda names, arrays: Named(zip(names, arrays, strict=True)),
)


class Labels(dict[str, tuple[Any, ...]]):
    """Labels of categories by covariate; the error for a covariate without labels lists those that have some."""

    def __missing__(self, name: str) -> Any:
        categories = [key for key in self if key not in (ENDPOINT_CODES, OCCASION_LEVELS)]
        raise KeyError(
            f"'{name}' has no labels, because it is not a category of this population. The categories are "
            f"{categories}. A covariate is a category where its column is text, or where "
            f"read_nonmem(categorical=...) names it."
        )


def warn_of_other_labels(fitted: Population, design: Population) -> None:
    """Warn where a code of a category means another label in a new population than in the one of a fit.

    Warns
    -----
    HieraxWarning
        Which category, the labels of both, and how to read the new population with the codes of the old one.
    """
    for name, old in fitted.labels.items():
        new = design.labels.get(name, ())
        if name not in design.covariates or (new and new[: len(old)] == old[: len(new)]):
            continue
        tell(
            f"The category '{name}' has the labels {list(old)} in the data of the fit, and {list(new)} in the new "
            f"population, so that its codes mean something else. Read or build the new population with "
            f"categorical={{{name!r}: {list(old)}}}.",
        )


class _LostIds:
    """Placeholder for the ids inside a compiled function, any use of which raises an error that explains it."""

    def _refuse(self, *_: Any) -> NoReturn:
        raise ValueError(
            "pop.ids is not known inside a model, because a compiled function serves subjects of any ids. Put what you "
            "need of each subject on the subject axis before: pop.with_data(name=array) is pop.data['name'] in the "
            "model."
        )

    __getitem__ = __iter__ = __len__ = __contains__ = __eq__ = __bool__ = _refuse  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        # Python looks up special attributes of any object, and expects an AttributeError for those that are missing.
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse()

    def __repr__(self) -> str:
        return "<ids are not known inside a compiled function>"


LOST_IDS = _LostIds()
