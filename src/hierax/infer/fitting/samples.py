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
        What the sampler says of each draw: diverging, num_steps, energy, accept_prob.
    independent : bool
        Whether the draws are independent, as a guide's are, and no Markov chain's: then there is no R-hat and no
        effective sample size to speak of.
    """

    flat: np.ndarray
    eta: np.ndarray | None
    stats: dict[str, np.ndarray]
    independent: bool = False
