"""What the engine knows of a NumPyro program."""
