"""Videos from noise: few-step rollouts, generation, streams."""
