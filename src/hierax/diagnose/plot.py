"""The plots, as ``hx.plot``."""

from hierax.diagnose.course_plots import convergence, traces
from hierax.diagnose.effect_plots import covariates, importance, random_effects
from hierax.diagnose.plots import data, individual_fits, observed_predicted, residuals, vpc

__all__ = [
    "convergence",
    "covariates",
    "data",
    "importance",
    "individual_fits",
    "observed_predicted",
    "random_effects",
    "residuals",
    "traces",
    "vpc",
]
