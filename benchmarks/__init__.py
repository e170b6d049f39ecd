"""Controlled comparisons of distillation methods: `python -m benchmarks.run`."""
