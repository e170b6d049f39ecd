"""Registers the method `consistency`."""

from salt_zoo import hookimpl


@hookimpl
def register(zoo):
    zoo.methods.add(
        "consistency",
        "salt_zoo_consistency.method:ConsistencyDistillation",
        "consistency distillation: one clean estimate along the teacher's path (arXiv 2303.01469)",
    )
