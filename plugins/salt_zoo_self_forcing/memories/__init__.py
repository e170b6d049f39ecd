"""What a KV cache keeps and where it places it: one policy a file, registered as `memories`."""
