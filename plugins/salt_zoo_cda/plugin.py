"""Registers CDA, its objective, and the diagnostics of caches."""

from salt_zoo import hookimpl


@hookimpl
def register(zoo):
    zoo.methods.add(
        "cda",
        "salt_zoo_cda.method:CDA",
        "SC-DMD on mixed step lists, aligned with a denser path's own cache (Salt, "
        "arXiv 2604.03118)",
        objectives={"distribution-matching": {}, "self-consistency": {}, "cache-alignment": {}},
    )
    zoo.objectives.add(
        "cache-alignment",
        "salt_zoo_cda.objective:CacheAlignment",
        "few steps on their own memory against more steps on theirs, in the teacher's features",
    )
    zoo.metrics.add(
        "cache-distance",
        "salt_zoo_cda.diagnostics:CacheDistance",
        "relative distance of the memory that 2 steps make to that of 8, over layers",
        steps=2,
    )
    zoo.metrics.add(
        "cache-distance-4",
        "salt_zoo_cda.diagnostics:CacheDistance",
        "relative distance of the memory that 4 steps make to that of 8, over layers",
        steps=4,
    )
    zoo.metrics.add(
        "cache-sensitivity",
        "salt_zoo_cda.diagnostics:CacheSensitivity",
        "how much the last block changes when its memory was made by 2 steps instead of 8",
    )
