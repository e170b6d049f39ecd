"""What needs no network: errors, numbers, options' types, keyed random draws, processes."""
