"""How sure a fit is: covariances, draws, posteriors."""
