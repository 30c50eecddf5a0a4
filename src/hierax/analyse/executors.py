"""Doing one thing many times by an executor: threads share what is compiled, processes get all that they need."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import jax


def run_all(one: Callable[[Any], Any], todo: list[Any], executor: Executor | None) -> Iterator[Any]:
    """Do one thing for each of a list, in order; by an executor, if there is one.

    ``one`` and its results must be picklable data for executors that are not threads: program, data and options are
    shipped, and compiled anew in each process, where disk caches help.

    Raises
    ------
    ValueError
        The executor forks, or what is to be shipped cannot be pickled.
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
        # Nobody waits for what is left when one has failed, or Ctrl-C was pressed.
        for future in futures:
            future.cancel()


def run_shipped(payload: bytes, x64: bool, item: Any) -> Any:
    """Do a thing that was shipped to this process."""
    jax.config.update("jax_enable_x64", x64)
    return _unpack(payload)(item)


@functools.lru_cache(2)
def _unpack(payload: bytes) -> Any:
    """Return what was shipped, once a process."""
    return pickle.loads(payload)


def _pack(one: Callable[[Any], Any]) -> bytes:
    """Return a thing as bytes; functions that no module has (of a notebook, or inside another one) by their code."""
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
    """Refuse a pool whose processes are forks: JAX has threads, whose locks a fork copies as they are, for good."""
    context = getattr(executor, "_mp_context", None)
    if isinstance(executor, ProcessPoolExecutor) and context is not None and context.get_start_method() == "fork":
        raise ValueError(
            "The ProcessPoolExecutor forks, and a fork of a process that runs JAX hangs. Make it with "
            "ProcessPoolExecutor(n, mp_context=multiprocessing.get_context('spawn'))."
        )
