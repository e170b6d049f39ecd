"""A plugin with an objective that has networks of its own."""
