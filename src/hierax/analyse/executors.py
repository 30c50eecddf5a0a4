"""Calling one function on many items, in this thread or by an executor of threads or processes."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import jax


def run_all(one: Callable[[Any], Any], todo: list[Any], executor: Executor | None) -> Iterator[Any]:
    """Yield the results of a function for each item of a list, in order, by an executor if one is given.

    ``one`` and its results must be picklable for executors that do not use threads: program, data and options are sent
    to each process and compiled there anew, which compilation caches on disk make faster.

    Raises
    ------
    ValueError
        The executor has no ``submit`` or forks its processes, or ``one`` cannot be pickled.
    """
    if executor is None:
        yield from map(one, todo)
        return
    if not callable(getattr(executor, "submit", None)):
        raise ValueError(
            f"executor={executor!r} cannot be given work, because it has no method submit. Pass a "
            f"concurrent.futures.ThreadPoolExecutor, a spawned ProcessPoolExecutor, or a client of Dask."
        )
    _refuse_forks(executor)
    if isinstance(executor, ThreadPoolExecutor):
        futures = [executor.submit(one, item) for item in todo]
    else:
        payload, x64 = _pack(one), bool(jax.config.read("jax_enable_x64"))
        futures = [executor.submit(run_shipped, payload, x64, item) for item in todo]
    try:
        for future in futures:
            yield future.result()
    finally:
        # After a failure or Ctrl-C, nobody waits for the results of the remaining items.
        for future in futures:
            future.cancel()


def run_shipped(payload: bytes, x64: bool, item: Any) -> Any:
    """Call a function that was sent to this process as bytes on an item."""
    jax.config.update("jax_enable_x64", x64)
    return _unpack(payload)(item)


@functools.lru_cache(2)
def _unpack(payload: bytes) -> Any:
    """Return the function that was sent as bytes; the cache makes each process unpickle it once."""
    return pickle.loads(payload)


def _pack(one: Callable[[Any], Any]) -> bytes:
    """Return a function as bytes; with cloudpickle, also one that no module holds, such as a function of a notebook."""
    try:
        import cloudpickle
    except ImportError:
        how, dumps = "Install cloudpickle, or define the model in a module of its own.", pickle.dumps
    else:
        how, dumps = "Use a ThreadPoolExecutor, or keep such objects out of the model.", cloudpickle.dumps
    try:
        return dumps(one)
    except Exception as error:  # Whatever an object raises when it is pickled.
        raise ValueError(
            f"The model, its data or its options cannot be sent to another process ({type(error).__name__}: {error}). "
            f"{how}"
        ) from error


def _refuse_forks(executor: Any) -> None:
    """Refuse a pool of forked processes: a fork copies the locks of JAX's threads, and nothing ever releases them."""
    context = getattr(executor, "_mp_context", None)
    if isinstance(executor, ProcessPoolExecutor) and context is not None and context.get_start_method() == "fork":
        raise ValueError(
            "The ProcessPoolExecutor forks, and a fork of a process that runs JAX hangs. Make it with "
            "ProcessPoolExecutor(n, mp_context=multiprocessing.get_context('spawn'))."
        )
