"""The demonstration: Theophylline, one compartment with first-order absorption, by FOCE."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import hierax as hx

POSITIVE = dist.constraints.positive
# The demonstration prints this note after its result, because the published optimum is not the lowest one.
OTHER_OPTIMUM = (
    "OFV 116.803 is the optimum of the literature, but only a local one: with absorption slower than elimination "
    "(flip-flop kinetics, ka 0.085/h and v 1.7 L) the OFV is 110.335, but these values are not credible."
)


def model(pop: hx.Population) -> None:
    """Describe one compartment with log-normal ka, CL and V and an additive error (mg, L, h)."""
    ka: Any = numpyro.param("ka", 1.0, constraint=POSITIVE)
    cl: Any = numpyro.param("cl", 3.0, constraint=POSITIVE)
    v: Any = numpyro.param("v", 30.0, constraint=POSITIVE)
    omega = numpyro.param("omega", jnp.array([0.5, 0.3, 0.3]), constraint=POSITIVE)
    sigma = numpyro.param("sigma", 1.0, constraint=POSITIVE)
    with numpyro.plate("subject", pop.n_subjects, dim=-2):
        eta: Any = numpyro.sample("eta", dist.Normal(0.0, omega).to_event(1))
        ka_i = numpyro.deterministic("KA", ka * jnp.exp(eta[..., 0]))
        cl_i = numpyro.deterministic("CL", cl * jnp.exp(eta[..., 1]))
        v_i = numpyro.deterministic("V", v * jnp.exp(eta[..., 2]))
        conc = hx.pk.one_compartment(pop, CL=cl_i, V=v_i, ka=ka_i)
        hx.observe("dv", dist.Normal(conc, sigma), pop)


def population() -> hx.Population:
    """Return the data: 12 subjects, 132 concentrations."""
    return hx.read_nonmem(hx.datasets.load("theophylline"), covariates=["WT"])
