"""Checks of a program before anything is estimated, with the errors and warnings that result."""
