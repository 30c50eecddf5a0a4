"""Structural models: what doses do over time."""
