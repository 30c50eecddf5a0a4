"""Chains that begin where there is no density."""

import jax
import jax.numpy as jnp
import numpy as np

from hierax.infer.saem.kernels import Kernels, Landscape, begin, sweep


def test_a_chain_whose_first_density_is_no_number_moves_on():
    """A standard normal, of which nothing is known below 0: the square root there is no number."""

    def density(eta):
        return (-0.5 * eta**2 + 0 * jnp.sqrt(eta)).sum(-1)

    subjects = 4
    land = Landscape(jnp.zeros((subjects, 1)), jnp.ones((subjects, 1, 1)), jnp.ones((subjects, 1, 1)))
    chains = begin(jnp.full((3, subjects, 1), -1.0))
    for step in range(20):
        chains = sweep(density, chains, land, jax.random.key(step), Kernels(), 0.0)
    assert np.isfinite(chains.log_density).all()
    assert (np.asarray(chains.eta) >= 0).all()
