"""A previous fit as the prior of the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpyro.distributions as dist

from hierax.results.uncertainty.covariance import usable_covariance

if TYPE_CHECKING:
    from hierax.results.fit import Fit


def priors_of(fit: Fit) -> dict[str, Any]:
    """Return by site the asymptotic distribution of a fit's estimates: normal in unconstrained space, mapped back.

    Sites are independent of one another here. Fixed sites, sites at the end of their range, and network weights get no
    prior.

    Raises
    ------
    ValueError
        The fit has no covariance.
    """
    covariance = usable_covariance(fit, "used as a prior")
    active = fit.free & ~fit.layout.weights()
    names = np.array(fit.layout.names(), dtype=object)
    out = {}
    for name, place in fit.layout.slices.items():
        # An estimate at the end of its range has no asymptotic normal distribution.
        if not active[place].all() or set(names[place]) & set(covariance.boundary):
            continue
        site = fit.program.sites.population[name]
        block = covariance.unconstrained.loc[list(names[place]), list(names[place])].to_numpy()
        free_shape = np.shape(site.transform.inv(np.asarray(site.start, float)))
        if free_shape == ():
            base: Any = dist.Normal(fit.flat[place][0], np.sqrt(block[0, 0]))
        else:
            base = dist.MultivariateNormal(fit.flat[place], block)
            if len(free_shape) > 1:
                reshape = dist.transforms.ReshapeTransform(free_shape, (base.event_shape[0],))
                base = dist.TransformedDistribution(base, reshape)
        out[name] = dist.TransformedDistribution(base, site.transform)
    return out
