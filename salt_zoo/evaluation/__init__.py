"""Videos and scores of a network."""
