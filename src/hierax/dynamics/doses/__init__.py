"""Doses as inputs to a system: arguments, times and amounts."""
