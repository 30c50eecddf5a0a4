"""The plots, as ``hx.plot``."""

from hierax.diagnose.plots import convergence, data, individual_fits, observed_predicted, residuals, vpc

__all__ = ["convergence", "data", "individual_fits", "observed_predicted", "residuals", "vpc"]
