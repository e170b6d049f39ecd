"""What is trained: networks, their shards, and their optimizers."""
