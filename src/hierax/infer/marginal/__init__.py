"""Approximations of the marginal likelihood, and the compiled objective that evaluates them."""
