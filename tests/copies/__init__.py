"""A block-causal toy, to test that everything runs block by block with a memory."""
