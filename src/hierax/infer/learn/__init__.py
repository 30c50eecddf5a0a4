"""Learning the distribution of random effects from a fit."""
