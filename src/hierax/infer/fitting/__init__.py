"""The parts of a fit that all estimators share: the job, loops, progress, and the outcome."""
