"""The plots, as ``hx.plot``."""

from hierax.diagnose.figures.course import convergence, traces
from hierax.diagnose.figures.effects import covariates, importance, random_effects
from hierax.diagnose.figures.fits import data, individual_fits, observed_predicted, residuals, vpc
from hierax.diagnose.figures.quantiles import residual_quantiles

__all__ = [
    "convergence",
    "covariates",
    "data",
    "importance",
    "individual_fits",
    "observed_predicted",
    "random_effects",
    "residual_quantiles",
    "residuals",
    "traces",
    "vpc",
]
