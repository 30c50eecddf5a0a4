"""The search over population parameters that maximises an objective."""
