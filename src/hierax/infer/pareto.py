"""Whether importance weights can be trusted, by the Pareto shape of their tail."""

from __future__ import annotations

import importlib
import threading
import warnings

import numpy as np

from hierax.versions import is_modern

# Above this shape the mean of the importance weights, and its error, cannot be trusted (Vehtari et al. 2024).
HIGH_K = 0.7
# All threads share the filters of warnings, so that only one thread at a time may change them.
_SILENT = threading.Lock()


def pareto_k(logs: np.ndarray) -> np.ndarray:
    """Return the Pareto shape of each subject's importance weights by ArviZ, (subject, sample) → (subject,)."""
    spread = logs.max(1) - logs.min(1)
    if is_modern():
        array_stats = importlib.import_module("arviz_stats.base").array_stats
        found = np.asarray(array_stats.psislw(-logs, axis=-1)[1])
    else:
        import arviz

        with _SILENT, warnings.catch_warnings():
            # ArviZ would warn of each subject whose weights are too uneven, one by one.
            warnings.simplefilter("ignore")
            found = np.asarray(arviz.psislw(logs.copy())[1])
    # Equal weights have no tail.
    return np.where(spread < 1e-9, -np.inf, found)
