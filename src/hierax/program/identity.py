"""Descriptions of what a Python object is made of, so that compiled functions are reused for the same program only."""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import hashlib
import pickle
import re
import sys
import types
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer

# Packages whose functions and classes are identified by name, without their code. What they close over is compared.
_LIBRARIES = frozenset(
    "jax jaxlib numpy scipy pandas numpyro flax optax diffrax equinox optimistix lineax jaxtyping xarray arviz "
    "matplotlib hierax tqdm typer rich narwhals".split()
) | frozenset(sys.stdlib_module_names)  # fmt: skip
# Modules that hold the user's own program although their names look like those of the standard library.
_OURS = frozenset({"__main__", "__mp_main__"})
# Once this many parts have been found, all further objects are identified by their address in memory.
_MAX_PARTS = 50_000
# Attributes that have no influence on what an object does.
_IGNORED = frozenset({"__weakref__", "__dict__", "__doc__", "__module__", "__firstlineno__", "__static_attributes__"})
_SCALARS = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), np.generic)


def parts(thing: Any, name: str = "") -> dict[str, str]:
    """Return what an object is made of, as text by place: ``self.flag``, ``global LIMIT``, ``closure scale``.

    A function is made of its code, its defaults, the values that it closes over and the globals that it reads, which
    are described in the same way; an object of its class and its attributes; an array of its values. An object that
    cannot be inspected is identified by its address in memory, so that two such objects are never taken for one.
    """
    walk = _Walk()
    walk.visit(thing, name)
    return walk.found


def fingerprint(thing: Any) -> str:
    """Return a short text that tells an object from others with different parts, within this process."""
    return digest(parts(thing))


def lasting_parts(thing: Any, name: str = "") -> dict[str, str]:
    """Return the parts of an object as text that is the same in every process."""
    return {place: _lasting(text) for place, text in parts(thing, name).items()}


def digest(items: Mapping[str, str]) -> str:
    """Return a short text, a hash, for named parts."""
    return hashlib.sha256("\n".join(f"{name} {items[name]}" for name in sorted(items)).encode()).hexdigest()[:32]


def _lasting(text: str) -> str:
    return re.sub(r"( at|@)0x[0-9a-f]+|@\d+", "", text)


class _Walk:
    """Visits an object and all that it is made of, and notes a text for each part."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self.seen: dict[int, str] = {}
        # Objects made during the walk are kept alive, since otherwise later ones could get the addresses in ``seen``.
        self.kept: list[Any] = []

    def visit(self, thing: Any, place: str) -> None:
        """Note one object and all that it is made of."""
        text = _plain(thing)
        if text is not None:
            self.found[place] = text
            return
        # Tuples are always visited, because Python decides whether two equal tuples are the same object.
        if id(thing) in self.seen and type(thing) is not tuple:
            self.found[place] = f"the same as {self.seen[id(thing)] or 'all'}"
            return
        self.seen[id(thing)] = place
        self.kept.append(thing)
        if len(self.found) > _MAX_PARTS:
            self.found[place] = f"{type(thing).__qualname__}@{id(thing)}"
            return
        for kinds, look in _LOOKS:
            if isinstance(thing, kinds):
                look(self, thing, place)
                return
        self.instance(thing, place)

    def several(self, things: Mapping[Any, Any], place: str, sign: str = ".") -> None:
        """Note several named parts of the object at ``place``."""
        for name, value in things.items():
            self.visit(value, f"{place}{sign if place else ''}{name}")

    def array(self, thing: Any, place: str) -> None:
        """Note an array by its values."""
        if isinstance(thing, Tracer):
            self.found[place] = "a traced value"
            return
        if isinstance(thing, jax.Array) and jax.dtypes.issubdtype(thing.dtype, jax.dtypes.prng_key):
            thing = jax.random.key_data(thing)
        values = np.ascontiguousarray(thing)
        if values.dtype == object:
            self.mapping(dict(enumerate(values.ravel().tolist())), place)
            return
        short = values.size <= 4
        digest = values.tolist() if short else hashlib.sha256(values.tobytes()).hexdigest()[:16]
        self.found[place] = f"{values.dtype}{list(values.shape)} {digest}"

    def sequence(self, thing: Any, place: str) -> None:
        """Note a list, tuple or set, with its order unless it is a set."""
        self.found[place] = f"{type(thing).__qualname__} of {len(thing)}"
        things = sorted(thing, key=repr) if isinstance(thing, set | frozenset) else thing
        for index, value in enumerate(things):
            self.visit(value, f"{place}[{index}]")

    def mapping(self, thing: Mapping[Any, Any], place: str) -> None:
        """Note a dict by its keys and values."""
        self.found[place] = f"{type(thing).__qualname__} of {[str(key) for key in thing]}"
        self.several(thing, place)

    def code(self, code: types.CodeType, place: str) -> None:
        """Note the code of a function, but not the file and the line at which it is written."""
        constants = [value for value in code.co_consts if not isinstance(value, types.CodeType)]
        text = (code.co_code, code.co_names, code.co_varnames, code.co_freevars, repr(constants))
        self.found[place] = hashlib.sha256(repr(text).encode()).hexdigest()[:16]
        for index, inner in enumerate(value for value in code.co_consts if isinstance(value, types.CodeType)):
            self.code(inner, f"{place}.inner[{index}]")

    def function(self, thing: types.FunctionType, place: str) -> None:
        """Note a function: code, defaults, closure, the globals that it reads, and its attributes."""
        own = not _of_library(thing.__module__)
        self.found[place] = f"function {thing.__module__}.{thing.__qualname__}"
        if own:
            # The name of a user's function is left out, because it has no influence on what the function does.
            self.found[place] = "function"
            self.code(thing.__code__, f"{place} code".strip())
        self.several(dict(enumerate(thing.__defaults__ or ())), f"{place} default".strip(), " ")
        self.several(thing.__kwdefaults__ or {}, f"{place} default".strip(), " ")
        for name, cell in zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True):
            self.visit(_inside(cell), f"{place} closure {name}".strip())
        if own:
            self.globals(thing, place)
            named = {name: value for name, value in vars(thing).items() if name != "__wrapped__"}
            self.several(named, f"{place} attribute".strip(), " ")

    def globals(self, thing: types.FunctionType, place: str) -> None:
        """Note the globals that a function reads, and of the user's modules the attributes that it may read."""
        names, attributes = _names(thing.__code__)
        for name in names:
            if name not in thing.__globals__:
                continue
            value = thing.__globals__[name]
            where = f"{place} global {name}".strip()
            if isinstance(value, types.ModuleType) and not _of_library(value.__name__):
                read = {key: getattr(value, key) for key in attributes if key in vars(value)}
                self.found[where] = f"module {value.__name__}"
                self.several(read, where)
            else:
                self.visit(value, where)

    def method(self, thing: types.MethodType, place: str) -> None:
        """Note a bound method: the function, and the object that it is bound to."""
        self.visit(thing.__func__, place)
        self.visit(thing.__self__, f"{place} self".strip())

    def module(self, thing: types.ModuleType, place: str) -> None:
        """Note a module by its name."""
        self.found[place] = f"module {thing.__name__}"

    def type(self, thing: type, place: str) -> None:
        """Note a class by its name, and if it is the user's own, also by its attributes and its bases."""
        self.found[place] = f"class {thing.__module__}.{thing.__qualname__}"
        if _of_library(thing.__module__):
            return
        inside = {name: value for name, value in vars(thing).items() if name not in _IGNORED}
        self.several(inside, place)
        self.several(dict(enumerate(thing.__bases__)), f"{place} base".strip(), " ")

    def distribution(self, thing: dist.Distribution, place: str) -> None:
        """Note a distribution by its parameters, leaving out values that it has computed from them since."""
        kind = type(thing)
        if not _of_library(kind.__module__):
            self.instance(thing, place)
            return
        self.found[place] = f"{kind.__module__}.{kind.__qualname__}"
        parameters, rest = thing.tree_flatten()
        self.visit(parameters, f"{place} parameters".strip())
        self.visit(rest, f"{place} options".strip())

    def wrapped(self, thing: Any, place: str) -> None:
        """Note a partial function, property or the like by what it wraps."""
        self.found[place] = type(thing).__qualname__
        names = ("func", "args", "keywords", "fget", "fset", "__func__", "__wrapped__")
        self.several({name: getattr(thing, name) for name in names if hasattr(thing, name)}, place)

    def instance(self, thing: Any, place: str) -> None:
        """Note an object by its class and attributes, else by its pickle, else by its address in memory."""
        kind = type(thing)
        self.found[place] = f"{kind.__module__}.{kind.__qualname__}"
        if not _of_library(kind.__module__):
            self.visit(kind, f"{place} class".strip())
        values = _attributes(thing)
        if values is not None:
            self.several(values, place)
        elif hasattr(thing, "__wrapped__"):
            self.visit(thing.__wrapped__, f"{place} wrapped".strip())
        else:
            self.found[place] += _pickled(thing)


_WRAPPERS = (functools.partial, property, staticmethod, classmethod, functools.partialmethod)
# The method that notes objects of a type; the first type that fits counts.
_LOOKS: tuple[tuple[Any, Any], ...] = (
    ((np.ndarray, jax.Array), _Walk.array),
    (types.FunctionType, _Walk.function),
    (types.MethodType, _Walk.method),
    (types.ModuleType, _Walk.module),
    (type, _Walk.type),
    (_WRAPPERS, _Walk.wrapped),
    (dist.Distribution, _Walk.distribution),
    ((list, tuple, set, frozenset), _Walk.sequence),
    ((dict, types.MappingProxyType), _Walk.mapping),
)


def _plain(thing: Any) -> str | None:
    """Return a text for a scalar, an enum member or a built-in function, and None for any other object."""
    if isinstance(thing, enum.Enum):
        return f"{type(thing).__qualname__}.{thing.name}"
    if type(thing) in _SCALARS or isinstance(thing, np.generic):
        return f"{type(thing).__qualname__} {thing!r}"
    if isinstance(thing, types.BuiltinFunctionType | types.WrapperDescriptorType | types.GetSetDescriptorType):
        return f"built-in {getattr(thing, '__qualname__', thing)}"
    return None


def _attributes(thing: Any) -> dict[str, Any] | None:
    """Return the attributes of an object, or None where they cannot be read."""
    slots = [name for kind in type(thing).__mro__ for name in _slots(kind)]
    values = {name: getattr(thing, name) for name in slots if hasattr(thing, name) and name not in _IGNORED}
    if dataclasses.is_dataclass(thing):
        fields = (field.name for field in dataclasses.fields(thing))
        values |= {name: getattr(thing, name) for name in fields if hasattr(thing, name)}
    own = getattr(thing, "__dict__", None)
    return {**values, **own} if isinstance(own, dict) and (own or values) else (values or None)


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _pickled(thing: Any) -> str:
    if type(thing) is object:
        # A bare object has no content, so that only its identity counts.
        return f"@{id(thing)}"
    try:
        return f" {hashlib.sha256(pickle.dumps(thing)).hexdigest()[:16]}"
    except Exception:  # Pickling may raise anything; the object is then identified by its address.
        return f"@{id(thing)}"


def _inside(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "not set yet"


def _of_library(module: str | None) -> bool:
    return module is not None and module not in _OURS and module.split(".")[0] in _LIBRARIES


@functools.lru_cache(4096)
def _names(code: types.CodeType) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the globals that code and the functions inside it read, and all attributes that they may read."""
    read: dict[str, None] = {}
    attributes: dict[str, None] = dict.fromkeys(code.co_names)
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            read[step.argval] = None
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            more, others = _names(inner)
            read |= dict.fromkeys(more)
            attributes |= dict.fromkeys(others)
    return tuple(read), tuple(attributes)
