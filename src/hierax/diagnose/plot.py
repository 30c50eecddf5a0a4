"""The plots, as ``hx.plot``."""

from hierax.diagnose.plots import convergence, individual_fits, observed_predicted, residuals, vpc

__all__ = ["convergence", "individual_fits", "observed_predicted", "residuals", "vpc"]
