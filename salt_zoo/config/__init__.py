"""A run's configuration: files, overrides, defaults, identity."""
