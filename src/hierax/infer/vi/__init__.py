"""Variational inference: bounds, guides and learning rates."""
