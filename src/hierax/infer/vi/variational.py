"""What a variational fit keeps: its guide, and the bound."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from hierax.data.population import Population
from hierax.data.sanitise import sanitise
from hierax.infer.marginal.session import Session
from hierax.infer.saem.roles import find_roles
from hierax.infer.vi.bound import Setting, bound, moments, moved, place, read
from hierax.program.parameters import Layout
from hierax.program.priors import log_prior, penalty

if TYPE_CHECKING:
    from hierax.infer.vi.vi import VI


def setting_of(
    session: Session, vi: VI, free: np.ndarray, shift: np.ndarray, pace: np.ndarray, linked: np.ndarray | None
) -> Setting:
    """Return the static parts of a run of VI on an objective."""
    program, layout, priors = session.program, session.layout, session.priors

    def params_of(flat: Any) -> Any:
        return program.constrain(layout.unravel(flat))

    def extra(flat: Any, pop: Any) -> Any:
        if vi.population != "point":
            return -log_prior(layout, priors, flat, pop)
        return penalty(layout, priors, flat, pop)

    return Setting(vi, program, params_of, extra, free, shift, pace, linked)


@dataclasses.dataclass(frozen=True, eq=False)
class Variational:
    """The guide of a fit by VI.

    Attributes
    ----------
    session : Session
        The objective of the fit, with its program, layout and priors.
    vi : VI
        The options.
    free, shift, pace : arrays, (parameter,)
        Which entries of the flat vector were free, which of them shift random effects, and the multiple of the learning
        rate of each free entry.
    state : State
        State at the end of the run, whose ``population`` and ``guide`` are the guides' parameters.
    flat : array, (parameter,)
        Start values of the run.
    elbo : pair of float
        Mean of the bound over the last steps, and its Monte-Carlo error.
    linked : array of int, or None
        Which of the free entries the guides of random effects are conditional on.
    pareto_k : float
        Pareto k of the importance weights p(y, θ)/q(θ) of the population parameters' guide, with random effects
        integrated out; NaN if the population parameters are points. Above 0.7 the guide is too far from the posterior.
    """

    session: Session
    vi: VI
    free: np.ndarray
    shift: np.ndarray
    pace: np.ndarray
    state: Any
    flat: np.ndarray
    elbo: tuple[float, float]
    linked: np.ndarray | None = None
    pareto_k: float = np.nan

    @property
    def layout(self) -> Layout:
        """Layout of the flat vector."""
        return self.session.layout

    @property
    def setting(self) -> Setting:
        """The static parts of the run."""
        return setting_of(self.session, self.vi, self.free, self.shift, self.pace, self.linked)

    def _design(self, pop: Population) -> Any:
        setting = self.setting
        roles = find_roles(setting.program, pop, self.layout, self.flat, setting.free)
        return jnp.asarray(roles.design)

    def _centre(self) -> Any:
        zero = jnp.zeros(int(self.setting.free.sum()))
        return place(self.setting, self.state.population, jnp.asarray(self.flat), zero)

    def encode(self, pop: Population) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and covariance of every subject's guide, (subject, coordinate[, coordinate]).

        An amortised guide takes any population of the same structure, other guides only the subjects of the fit.
        """
        self._own(pop)
        function = jax.jit(partial(moments, self.setting, refined=True))
        design, key = self._design(pop), jax.random.key(0)
        rows = np.flatnonzero(np.asarray(pop.subject_mask))
        mean, covariance = function(self.state.guide, self._centre(), jnp.asarray(self.flat), design, pop, key)
        return np.asarray(mean)[rows], np.asarray(covariance)[rows]

    def bounds(self, pop: Population, draws: int = 200, seed: int = 0, samples: int | None = None) -> pd.Series:
        """Return the bound of every subject's log likelihood, the mean of ``draws`` repetitions.

        ``samples`` is the K of the importance-weighted bound, by default that of the fit: the larger, the closer to the
        log likelihood.
        """
        self._own(pop)
        if samples is not None and samples < 1:
            raise ValueError(f"bounds(samples={samples}) must be 1 (the ELBO) or more.")
        setting = self.setting
        if samples is not None:
            setting = setting._replace(vi=dataclasses.replace(setting.vi, samples=samples))

        def run(population: Any, guide: Any, design: Any, pop: Population, keys: Any) -> Any:
            clean, ones = sanitise(pop), jnp.asarray(pop.subject_mask).astype(float)
            flat, here = jnp.asarray(self.flat), self._centre()
            member: Any = read
            if setting.linked is None:
                # The guide does not depend on the draw of the population parameters: its members are computed once.
                none = jnp.zeros(int(setting.free.sum()))
                member = read(setting, guide, here, moved(setting, here, flat, design), none, clean)

            def once(key: Any) -> Any:
                return bound(setting, population, guide, flat, clean, design, ones, key, member)[3]

            return jax.lax.map(once, keys).mean(0)

        keys = jax.random.split(jax.random.key(seed), draws)
        values = np.asarray(jax.jit(run)(self.state.population, self.state.guide, self._design(pop), pop, keys))
        rows = np.flatnonzero(np.asarray(pop.subject_mask))
        return pd.Series(values[rows], index=pd.Index(pop.subject_ids, name="subject"), name="bound")

    def _own(self, pop: Population) -> None:
        leaves = jax.tree.leaves(self.state.guide)
        if self.setting.vi.guide.local and leaves and len(leaves[0]) != pop.n_subjects:
            raise ValueError(
                f"The guide has parameters for {len(leaves[0])} subjects, but the population has {pop.n_subjects} "
                f"subjects, and only an amortised guide reads other subjects. Fit with "
                f"VI(guide=hx.guides.Amortised())."
            )
