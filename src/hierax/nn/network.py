"""``nn.network``: NumPyro's ``flax_module``, which also records the module for looking at what was learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax.tree_util import tree_flatten_with_path
from numpyro.contrib.module import flax_module
from numpyro.primitives import apply_stack

from hierax.privately import handlers_in_force


def network(name: str, module: Any, *args: Any, input_shape: tuple[int, ...] | None = None) -> Callable[..., Any]:
    """Register a Linen module's weights as the population parameter ``name$params``, and return it as a function.

    Like NumPyro's ``flax_module``, it is called above the subject plate. The module is recorded beside the weights, so
    that :func:`hierax.predict_function` finds it by its name.

    Parameters
    ----------
    name : str
        Name of the network.
    module : flax.linen.Module
        The network.
    *args
        Example arguments, from which the shapes of the weights are found.
    input_shape : tuple of int, optional
        Shape of one input instead of ``args``.

    Returns
    -------
    callable
        Function of the inputs.

    Examples
    --------
    >>> def learned(pop):
    ...     rate = hx.nn.network('rate', hx.nn.Positive(hx.nn.MLP()), input_shape=(1,))
    ...     with numpyro.plate('subject', pop.n_subjects, dim=-2):
    ...         hx.observe('dv', dist.Normal(rate(pop.times[..., None])[..., 0], 1.0), pop)
    >>> hx.check(learned, pop, show=False).index.tolist()
    ['rate$params', 'dv']
    """
    options = {} if input_shape is None else {"input_shape": input_shape}
    function = flax_module(name, module, *args, **options)
    note(name, module.apply)
    return function


def note(name: str, apply: Callable[..., Any]) -> None:
    """Record ``apply``, the function of ``{"params": weights}`` and inputs, in the program's trace."""
    if not handlers_in_force():
        return
    apply_stack(
        {
            "type": "network",
            "name": f"{name}$network",
            "fn": lambda: apply,
            "args": (),
            "kwargs": {},
            "value": None,
            "infer": {},
            "cond_indep_stack": [],
        }
    )


def leaves_of(weights: Any, which: str, call: str) -> list[int]:
    """Return which tensors of a network are meant: "all", or those of a layer by its name; errors quote ``call``.

    Raises
    ------
    ValueError
        If there is no such layer; the message names the layers that there are.
    """
    keys = [[str(getattr(entry, "key", entry)) for entry in path] for path, _ in tree_flatten_with_path(weights)[0]]
    chosen = [k for k, path in enumerate(keys) if which == "all" or which in path]
    if not chosen:
        layers = sorted({path[-2] if len(path) > 1 else path[-1] for path in keys})
        raise ValueError(f"{call} names no layer of the network, which has {layers}. Use one of them, or 'all'.")
    return chosen
