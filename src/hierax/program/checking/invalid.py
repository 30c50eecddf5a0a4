"""Explaining which parameters and which line of a model gave a distribution invalid arguments."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.core
import numpy as np
import numpyro
from numpyro.distributions import constraints

# NumPyro's error contains these words if a distribution got arguments that it cannot have.
_REFUSAL = "distribution got invalid"
# Folders whose files are not the user's own code.
_LIBRARIES = (Path(str(numpyro.__file__)).parent, Path(str(jax.__file__)).parent, Path(__file__).parents[1])


def explain_invalid(error: ValueError, messages: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return a helpful message where NumPyro refused the arguments of a distribution; None for any other error.

    Parameters
    ----------
    error : ValueError
        What was raised while the model ran at its start values.
    messages : mapping
        The sites that the model had reached: name → NumPyro's message.
    """
    if _REFUSAL not in str(error):
        return None
    low = [f"{name} = {_shown(msg['value'])}" for name, msg in messages.items() if _is_unconstrained(msg)]
    text = f"{str(error).rstrip('.')} at the start values, {_line(error)}."
    if low:
        text += (
            f" Parameters without a constraint that are not positive there: {', '.join(low)}. Where one of them is a "
            f"scale, declare it by numpyro.param(name, start, constraint=numpyro.distributions.constraints.positive)"
        )
    else:
        text += " Look at how that argument is computed"
    return f"{text}, or change its start value."


def _is_unconstrained(msg: Mapping[str, Any]) -> bool:
    """Return whether a site is a parameter that may have any value, and has one that is not positive."""
    if msg["type"] != "param" or msg["kwargs"].get("constraint", constraints.real) is not constraints.real:
        return False
    leaves = jax.tree.leaves(msg["value"])
    if len(leaves) != 1 or isinstance(leaves[0], jax.core.Tracer):
        return False
    return bool((np.asarray(leaves[0]) <= 0).any())


def _shown(value: Any) -> str:
    return np.array2string(np.asarray(value), precision=4, separator=", ")


def _line(error: ValueError) -> str:
    """Return the line of the user's own code at which the distribution was made."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if not any(Path(one.filename).is_relative_to(path) for path in _LIBRARIES)]
    if not own:
        return "in the model"
    last = own[-1]
    code = f": {last.line}" if last.line else ""
    return f"in line {last.lineno} of {last.name} ({Path(last.filename).name}){code}"
