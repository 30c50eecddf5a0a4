"""A type checker for jaxtyping's import hook that holds every array to the axes that its annotation names.

beartype would check all annotations, and cannot: names that a file imports for the type checker alone do not exist when
the program runs. Here jaxtyping's annotations are checked, and nothing else.
"""

import functools
import inspect
import types
import typing

import jax
import numpy as np


def checked(function):
    """Return a function whose arguments and result are held to their jaxtyping annotations."""
    names = getattr(function, "__annotations__", {})
    if not names:
        return function
    signature = inspect.signature(function)
    kinds = {}

    @functools.wraps(function)
    def wrapper(*args, **options):
        if not kinds:
            kinds.update({name: _evaluated(function, text) for name, text in names.items()})
        bound = signature.bind(*args, **options)
        for name, value in bound.arguments.items():
            _hold(function, name, value, kinds.get(name))
        result = function(*args, **options)
        _hold(function, "return", result, kinds.get("return"))
        return result

    return wrapper


def _evaluated(function, text):
    """Return an annotation, or None where it names what does not exist when the program runs."""
    try:
        return eval(text, function.__globals__) if isinstance(text, str) else text
    except (NameError, TypeError, AttributeError):
        return None


def _options(kind):
    """Return the jaxtyping annotations among which a value may choose; None where anything goes."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        parts = [_options(part) for part in typing.get_args(kind) if part is not type(None)]
        return None if None in parts else [one for part in parts for one in part]
    return [kind] if isinstance(kind, type) and hasattr(kind, "dims") else None


def _hold(function, name, value, kind):
    allowed = _options(kind)
    # Data classes of arrays also hold descriptions of shapes, while JAX looks at what a function would return.
    if not allowed or not isinstance(value, jax.Array | np.ndarray):
        return
    if not any(isinstance(value, one) for one in allowed):
        raise TypeError(
            f"{function.__module__}.{function.__qualname__}: {name} has shape {value.shape} of {value.dtype} "
            f"({type(value).__name__}), and is annotated {kind}"
        )
