"""Registers CDA, its objective, and the diagnostics of caches with their section of the report."""

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
    distances = {
        "cache-distance": ("2", "over layers", {}),
        "cache-distance-first": ("2", "in the first layer", {"layer": 0}),
        "cache-distance-last": ("2", "in the last layer", {"layer": -1}),
        "cache-distance-4": ("4", "over layers", {"steps": 4}),
    }
    for name, (steps, where, options) in distances.items():
        zoo.metrics.add(
            name,
            "salt_zoo_cda.diagnostics:CacheDistance",
            f"relative distance of the memory that {steps} steps make to that of 8, {where}",
            **options,
        )
    zoo.metrics.add(
        "cache-sensitivity",
        "salt_zoo_cda.diagnostics:CacheSensitivity",
        "how much the last block changes when its memory was made by 2 steps instead of 8",
    )


@hookimpl
def training_started(config):
    from salt_zoo_cda.never_due import cache_alignment
    from salt_zoo_dmd.never_due import warn

    warn(config, "cache-alignment", cache_alignment)


@hookimpl
def report_sections(results):
    from salt_zoo_cda.report import cache_section

    return cache_section(results)
