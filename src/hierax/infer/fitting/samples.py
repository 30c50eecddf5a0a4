"""Draws of a posterior."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Samples:
    """Draws of a posterior.

    Attributes
    ----------
    flat : array, (chain, draw, parameter)
        Population parameters, unconstrained.
    eta : array, (chain, draw, subject, coordinate), or None
        Random effects in working coordinates.
    stats : dict of arrays, (chain, draw)
        What the sampler says about each draw: diverging, num_steps, energy, accept_prob.
    independent : bool
        Whether the draws are independent (from a guide) and not from a Markov chain. R-hat and effective sample size do
        not apply to independent draws.
    """

    flat: np.ndarray
    eta: np.ndarray | None
    stats: dict[str, np.ndarray]
    independent: bool = False
