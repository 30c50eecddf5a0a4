"""Estimators and their options as JSON, and back."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from hierax.infer.method import Method

# Prefix of the modules in which this library's own classes of options are found. Classes of users have to be imported
# by the program that loads a fit.
_OWN = "hierax."


def encode(thing: Any) -> Any:
    """Return an estimator or option as JSON, with a note of its type in place of each value that cannot be written.

    Functions cannot be written (optimisers of optax hold them), so that an estimator with one is restored only where it
    is passed again.
    """
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        kind = type(thing)
        names = [field.name for field in dataclasses.fields(thing) if field.init]
        fields = {name: encode(getattr(thing, name)) for name in names}
        return {"class": f"{kind.__module__}:{kind.__qualname__}", "fields": fields}
    if isinstance(thing, bool | int | float | str) or thing is None:
        return thing
    if isinstance(thing, tuple | list) and not hasattr(thing, "_fields"):
        return {"tuple": [encode(one) for one in thing]}
    if isinstance(thing, dict) and all(isinstance(name, str) for name in thing):
        return {"dict": {name: encode(one) for name, one in thing.items()}}
    return {"unsaved": type(thing).__name__}


def unsaved(spec: Any, place: str = "") -> list[str]:
    """Return the options of an encoded estimator that could not be written."""
    if isinstance(spec, list):
        return [name for index, one in enumerate(spec) for name in unsaved(one, f"{place}[{index}]")]
    if not isinstance(spec, dict):
        return []
    if "unsaved" in spec:
        return [f"{place} ({spec['unsaved']})"]
    inside = next((spec[key] for key in ("fields", "tuple", "dict") if key in spec), {})
    if isinstance(inside, list):
        return unsaved(inside, place)
    return [found for name, one in inside.items() for found in unsaved(one, f"{place}.{name}" if place else name)]


def decode(spec: Any) -> Any:
    """Return the estimator or option of a JSON description.

    Raises
    ------
    LookupError
        Its class is not known here.
    """
    if isinstance(spec, dict) and "class" in spec:
        return _class(spec["class"])(**{name: decode(one) for name, one in spec["fields"].items()})
    if isinstance(spec, dict) and "tuple" in spec:
        return tuple(decode(one) for one in spec["tuple"])
    if isinstance(spec, dict) and "dict" in spec:
        return {name: decode(one) for name, one in spec["dict"].items()}
    return spec


def _class(path: str) -> Any:
    """Return a class of options that is already imported; a file must not instantiate any other class."""
    module, _, name = path.partition(":")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        # Classes that were defined inside functions are not attributes of a module, but subclasses of ``Method``.
        found = next((kind for kind in _below(Method) if f"{kind.__module__}:{kind.__qualname__}" == path), None)
    if found is None and module.startswith(_OWN):
        found = _moved(name)
    own = module.startswith(_OWN) or (isinstance(found, type) and issubclass(found, Method))
    if not (isinstance(found, type) and dataclasses.is_dataclass(found) and own):
        raise LookupError(path)
    return found


def _moved(name: str) -> Any:
    """Return a class of this library by its name alone: its module may have moved since the file was written."""
    found = (vars(module).get(name) for path, module in list(sys.modules.items()) if path.startswith(_OWN))
    return next((kind for kind in found if isinstance(kind, type) and dataclasses.is_dataclass(kind)), None)


def _below(kind: type) -> list[type]:
    return [one for child in kind.__subclasses__() for one in (child, *_below(child))]
