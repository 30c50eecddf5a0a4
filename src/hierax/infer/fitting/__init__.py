"""What runs a fit, whatever the estimator: the job, loops, progress, and the outcome."""
