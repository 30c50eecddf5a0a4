"""Markov chains over population parameters."""
