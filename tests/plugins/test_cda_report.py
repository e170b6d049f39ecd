"""What a report says of caches: numbers of the results, and nothing where none were measured."""

from __future__ import annotations

import pytest

from salt_zoo.plugin.manager import load_zoo
from salt_zoo_cda.report import cache_section


def row(metric, arm, mean, backbone="self-forcing"):
    return {
        "metric": metric,
        "arm": arm,
        "backbone": backbone,
        "mean": mean,
        "low": None if mean is None else mean - 0.01,
        "high": None if mean is None else mean + 0.01,
    }


def measured(**more):
    means = {
        "cache-distance": (0.5, 0.4, 0.3),
        "cache-distance-4": (0.2, 0.25, 0.1),
        "cache-distance-first": (0.11, 0.12, 0.13),
        "cache-sensitivity": (0.6, 0.7, 0.8),
        **more,
    }
    arms = ("initial-naive", "dmd", "cda")
    rows = [row(m, a, v) for m, values in means.items() for a, v in zip(arms, values, strict=True)]
    return {"rows": [*rows, row("cache-distance", "teacher-naive", None, "wan")]}


def text(results):
    ((_, found),) = cache_section(results)
    return found


def test_smallest_and_largest_are_named_with_their_intervals():
    found = text(measured())
    assert "differ from those of 8 by 30.0% [29.0%, 31.0%] (cda) to 50.0% " in found
    assert "Memories of 4 steps differ by 10.0% [9.0%, 11.0%] (cda) to 25.0%" in found
    assert "In the first layer memories of 2 steps differ by 11.0%" in found
    assert "last layer" not in found
    assert "changes by 60.0% [59.0%, 61.0%] (initial-naive) to 80.0%" in found
    assert "teacher" not in found


def test_backbones_are_named_where_there_are_several():
    rows = [row("cache-distance", "dmd", 0.1), row("cache-distance", "dmd", 0.2, "other")]
    found = text({"rows": rows})
    assert "(dmd (self-forcing)) to 20.0% [19.0%, 21.0%] (dmd (other))" in found


def test_the_order_of_steps_is_looked_up():
    assert "For all 3 networks those of 4 steps are the nearer ones." in text(measured())
    turned = text(measured(**{"cache-distance-4": (0.2, 0.45, 0.3)}))
    assert "Those of 4 steps are no nearer for dmd, cda." in turned
    assert "For all" not in turned


def test_without_intervals_or_fellows_it_says_what_is_there():
    alone = {"rows": [{**row("cache-distance", "dmd", 0.5), "low": None, "high": None}]}
    assert "differ from those of 8 by 50.0% (dmd)." in text(alone)
    assert "last block, made" not in text(alone)


@pytest.mark.parametrize("rows", [[], [row("cache-distance", "teacher", None)]])
def test_without_measured_memories_there_is_no_section(rows):
    assert cache_section({"rows": rows}) == []
    assert load_zoo().hook.report_sections(results={"rows": rows}, folder=None) == [[]]
