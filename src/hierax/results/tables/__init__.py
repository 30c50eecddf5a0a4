"""Tables of a fit: the summary, random effects, matrices."""
