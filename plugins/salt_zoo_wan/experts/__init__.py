"""Two transformers as one network, each in its phase (Wan 2.2 A14B)."""
