"""Diagnostics, plots and reports of a fit."""
