"""Uncertainty of a fit: covariances, draws and posteriors."""
