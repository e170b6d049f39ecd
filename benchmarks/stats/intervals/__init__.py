"""Scores of arms, and intervals of them and of their differences."""
