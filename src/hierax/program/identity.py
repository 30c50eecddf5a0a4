"""What a Python object is made of, part by part: so that a program that was compiled serves that program alone."""

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

# Packages whose code is taken to be the same as long as its name is. What their functions close over is looked at.
_LIBRARIES = frozenset(
    "jax jaxlib numpy scipy pandas numpyro flax optax diffrax equinox optimistix lineax jaxtyping xarray arviz "
    "matplotlib hierax tqdm typer rich narwhals".split()
) | frozenset(sys.stdlib_module_names)  # fmt: skip
# Names of modules that are the user's own program although the standard library has such a name.
_OURS = frozenset({"__main__", "__mp_main__"})
# Past so many parts an object is taken as it is, by its place in memory.
_MOST = 50_000
# What an object carries that says nothing of what it does.
_UNSAID = frozenset({"__weakref__", "__dict__", "__doc__", "__module__", "__firstlineno__", "__static_attributes__"})
_SCALARS = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), np.generic)


def parts(thing: Any, name: str = "") -> dict[str, str]:
    """Return what an object is made of, as text by place: ``self.flag``, ``global LIMIT``, ``closure scale``.

    A function is its code, its defaults, what it closes over, and the globals that it reads, in the same way; an
    object is its class and its attributes; arrays count by their values. What cannot be looked into is told apart by
    its place in memory, so that two such objects are never taken for one.
    """
    walk = _Walk()
    walk.visit(thing, name)
    return walk.found


def fingerprint(thing: Any) -> str:
    """Return one text for all parts of an object, by which two are told apart within this process."""
    return digest(parts(thing))


def lasting_parts(thing: Any, name: str = "") -> dict[str, str]:
    """Return the parts of an object as text that is the same in every process."""
    return {place: _lasting(text) for place, text in parts(thing, name).items()}


def digest(items: Mapping[str, str]) -> str:
    """Return one short text for named parts."""
    return hashlib.sha256("\n".join(f"{name} {items[name]}" for name in sorted(items)).encode()).hexdigest()[:32]


def _lasting(text: str) -> str:
    return re.sub(r"( at|@)0x[0-9a-f]+|@\d+", "", text)


class _Walk:
    """Goes through an object once, and notes what it finds."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self.seen: dict[int, str] = {}
        # Objects that the walk itself made must live as long as their places in memory are compared.
        self.kept: list[Any] = []

    def visit(self, thing: Any, place: str) -> None:
        """Note one object and all that it is made of."""
        text = _plain(thing)
        if text is not None:
            self.found[place] = text
            return
        # Whether two equal tuples are one object is Python's doing.
        if id(thing) in self.seen and type(thing) is not tuple:
            self.found[place] = f"the same as {self.seen[id(thing)] or 'all'}"
            return
        self.seen[id(thing)] = place
        self.kept.append(thing)
        if len(self.found) > _MOST:
            self.found[place] = f"{type(thing).__qualname__}@{id(thing)}"
            return
        for kinds, look in _LOOKS:
            if isinstance(thing, kinds):
                look(self, thing, place)
                return
        self.instance(thing, place)

    def several(self, things: Mapping[Any, Any], place: str, sign: str = ".") -> None:
        """Note named parts of something."""
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
        """Note a dict: its keys and what is behind them."""
        self.found[place] = f"{type(thing).__qualname__} of {[str(key) for key in thing]}"
        self.several(thing, place)

    def code(self, code: types.CodeType, place: str) -> None:
        """Note what a function does, whatever file and line it is written at."""
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
            # The name of a user's function says nothing of what it does.
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
        """Note the globals that a function reads; of the user's modules, what it reads of them."""
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
        """Note a class: by its name where a library has it, else with all its functions and its bases."""
        self.found[place] = f"class {thing.__module__}.{thing.__qualname__}"
        if _of_library(thing.__module__):
            return
        inside = {name: value for name, value in vars(thing).items() if name not in _UNSAID}
        self.several(inside, place)
        self.several(dict(enumerate(thing.__bases__)), f"{place} base".strip(), " ")

    def distribution(self, thing: dist.Distribution, place: str) -> None:
        """Note a distribution by its parameters; what it has computed of them since is no part of it."""
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
        """Note an object: its class, and its attributes; else how it is pickled; else its place in memory."""
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
    """Return the text of what is no more than a value."""
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
    values = {name: getattr(thing, name) for name in slots if hasattr(thing, name) and name not in _UNSAID}
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
        # Made to be itself and nothing else.
        return f"@{id(thing)}"
    try:
        return f" {hashlib.sha256(pickle.dumps(thing)).hexdigest()[:16]}"
    except Exception:  # Whatever an object raises when it is pickled: it is then known by its place alone.
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
    """Return the globals that code reads, that of functions inside it included, and all attributes it may read."""
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
