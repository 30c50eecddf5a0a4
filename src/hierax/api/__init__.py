"""The public functions that join the layers."""
