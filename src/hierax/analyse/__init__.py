"""Analyses of fits: model comparison, intervals, simulation and refits."""
