"""What a method is, the networks that it asks for, and both without memory (meta device)."""
