"""Fits as files and as ArviZ data."""
