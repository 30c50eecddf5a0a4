"""NUTS over population parameters, with or without the random effects, and MAP estimates."""
