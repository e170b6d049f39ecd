"""Files, terminals, signals and processes."""
