"""Time and bytes of rollouts: `python -m benchmarks.perf`."""
