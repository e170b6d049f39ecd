"""Plugins: hooks, registries, and the frame round foreign code."""
