"""The entries of a study's file."""
