"""Imports what the commands of tests use, and runs nothing: see `tests/forked.py`."""

import gc
from importlib import import_module

gc.disable()  # which leave no garbage
for name in (
    *("diffusers.models.transformers.transformer_wan", "pandas", "safetensors.torch"),
    *("sklearn.datasets", "matplotlib.figure", "matplotlib.backends.backend_agg"),
    *("benchmarks.runner.arms", "benchmarks.runner.runner", "benchmarks.report.build"),
    *("salt_zoo.cli", "salt_zoo.planning.check", "salt_zoo.planning.plan"),
    *("salt_zoo.training.launch", "salt_zoo_self_forcing.backbone", "salt_zoo_wan.backbone"),
):
    import_module(name)

gc.collect()
gc.freeze()  # no fork looks at what all have
gc.enable()
