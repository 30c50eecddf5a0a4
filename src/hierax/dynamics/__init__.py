"""Structural models: closed forms and differential equations that turn doses into predictions over time."""
