"""What a training costs: passes, FLOPs, activations."""
