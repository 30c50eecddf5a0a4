"""What importance weights are worth: the Pareto shape of their tail."""

from __future__ import annotations

import importlib
import threading
import warnings

import numpy as np

from hierax.versions import is_modern

# Above it the importance weights' mean, and its error, cannot be trusted (Vehtari et al. 2024).
HIGH_K = 0.7
# Filters of warnings are one for all threads, so that one thread at a time sets them aside.
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
            # Each subject whose weights are too uneven would be told of one by one.
            warnings.simplefilter("ignore")
            found = np.asarray(arviz.psislw(logs.copy())[1])
    # Equal weights have no tail.
    return np.where(spread < 1e-9, -np.inf, found)
