"""Differential equations with doses: systems, grids, solvers."""
