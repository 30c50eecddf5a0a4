"""The base class of everything that is configured by options, which checks their names and types."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import re
from typing import Any, Self

import numpy as np

from hierax.arguments import is_number, whole


class Options:
    """Base of dataclasses whose fields are options: estimators, guides, solvers, searches.

    The expected type of each option is read from its annotation, so that a new option is checked without further code.

    Examples
    --------
    >>> hx.NUTS(draws='many')
    Traceback (most recent call last):
    ValueError: NUTS(draws='many') must be a whole number of 0 or more, given as an int.
    """

    def __new__(cls, *values: Any, **options: Any) -> Self:
        """Refuse unknown options, naming the known ones, and values of another type than the annotated one."""
        fields = [field for field in dataclasses.fields(cls) if field.init] if dataclasses.is_dataclass(cls) else []
        if fields and cls.__init__ is not object.__init__:
            _refuse_unknown(cls, [field.name for field in fields], options)
            kinds = {field.name: str(field.type) for field in fields}
            for name, value in {**dict(zip(kinds, values, strict=False)), **options}.items():
                _refuse_wrong_type(cls.__name__, name, value, kinds[name])
        return super().__new__(cls)


def _refuse_unknown(cls: type, known: list[str], options: dict[str, Any]) -> None:
    """Refuse options that the class does not have."""
    wrong = [name for name in options if name not in known]
    if not wrong:
        return
    close = [near for name in wrong for near in difflib.get_close_matches(name, known, 1)]
    meant = f"Did you mean {close[0]}=? " if close else ""
    raise TypeError(
        f"{cls.__name__} has no option {', '.join(f'{name}=' for name in wrong)}. {meant}Its options are "
        f"{', '.join(known)}."
    )


def _refuse_wrong_type(owner: str, name: str, value: Any, kind: str) -> None:
    """Refuse a value that does not fit its annotation; values with an annotation not handled here are accepted."""
    allowed = [value for found in _LITERAL.findall(kind) for value in ast.literal_eval(f"({found},)")]
    if allowed and any(value is one or (type(value) is type(one) and value == one) for one in allowed):
        return
    kinds = _LITERAL.sub("choice", kind).split(" | ")
    if "None" in kinds and value is None:
        return
    asked = f"{owner}({name}={value!r})"
    if "bool" in kinds and isinstance(value, bool | np.bool_):
        return
    if allowed:
        choices = [repr(one) for one in allowed] + (["True", "False"] if "bool" in kinds else [])
        raise ValueError(f"{asked} is not known. Use {', '.join(choices[:-1])} or {choices[-1]}.")
    if "int" in kinds:
        try:
            whole(name, value, 0)
        except ValueError:
            raise ValueError(f"{asked} must be a whole number of 0 or more, given as an int.") from None
    elif "float" in kinds:
        if not is_number(value) or np.isnan(value):
            raise ValueError(f"{asked} must be a number.")
    elif kinds == ["bool"]:
        raise ValueError(f"{asked} must be True or False.")
    elif kind in _CLASSES and not any(base.__name__ == kind for base in type(value).__mro__):
        raise ValueError(f"{asked} must be {_CLASSES[kind]}.")


# Finds Literal[...] in an annotation, and captures the values that it allows.
_LITERAL = re.compile(r"Literal\[([^\]]*)\]")
# Options whose value is an object of Hierax, by the name of its class: how messages call it, with an example.
_CLASSES = {
    "Estimator": "an approximation of the marginal likelihood, such as hx.FOCE()",
    "Newton": "a description of the search for the modes, such as hx.Newton(max_iter=50)",
    "QuasiNewton": "a description of the search over population parameters, such as hx.QuasiNewton(max_iter=200)",
    "Guide": "a guide, such as hx.guides.Normal()",
    "Kernels": "a description of the Markov chains of SAEM, such as hx.Kernels()",
}
