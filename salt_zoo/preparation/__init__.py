"""What is computed once before many trainings: encoded prompts, latents, trajectories."""
