"""The causal transformer with a KV cache."""
