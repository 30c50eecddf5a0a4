"""Plots of data and fits; every function returns a matplotlib figure."""
