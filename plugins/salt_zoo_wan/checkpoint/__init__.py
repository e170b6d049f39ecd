"""Files of weights: formats, finding, reading, identifying, loading and saving."""
