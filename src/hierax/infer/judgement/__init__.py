"""Checks of the end of a fit: whether it is an optimum, and whether there is one."""
