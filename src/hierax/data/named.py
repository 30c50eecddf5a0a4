"""Mappings of a population that say what they have, and ids that say why they are not there."""

from __future__ import annotations

from typing import Any, NoReturn

import jax


class Named(dict[str, Any]):
    """Arrays by name; a name that is not there says which are."""

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
    """Labels of categories by covariate; a name that has none says which have."""

    def __missing__(self, name: str) -> Any:
        # Keys with a blank are ours, and no covariates.
        raise KeyError(
            f"'{name}' has no labels, because it is no category of this population; those are "
            f"{[key for key in self if ' ' not in key]}. A covariate is a category where its column is text, or where "
            f"read_nonmem(categorical=...) names it."
        )


class _LostIds:
    """Stands for the ids inside a compiled function, and says so when it is used."""

    def _refuse(self, *_: Any) -> NoReturn:
        raise ValueError(
            "pop.ids is not known inside a model, because a compiled function serves subjects of any ids. Put what you "
            "need of each subject on the subject axis before: pop.with_data(name=array) is pop.data['name'] in the "
            "model."
        )

    __getitem__ = __iter__ = __len__ = __contains__ = __eq__ = __bool__ = _refuse  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        # What Python itself asks of any object stays an AttributeError.
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse()

    def __repr__(self) -> str:
        return "<ids are not known inside a compiled function>"


LOST_IDS = _LostIds()
