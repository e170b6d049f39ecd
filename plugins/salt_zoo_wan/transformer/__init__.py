"""Wan's transformer as a network of methods."""
