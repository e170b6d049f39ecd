"""`check_metric` finds what it looks for; our own metrics pass it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from salt_zoo.conformance import check_metric
from salt_zoo.core.base.errors import MissingPackage
from salt_zoo.plugin.manager import load_zoo


class Mean:
    direction = "higher"
    mean = True
    bounds = (0.0, 1.0)
    own_steps = None

    def __init__(self, config: Any, zoo: Any) -> None:
        self.calls = 0

    def measure(self, videos: Any) -> Tensor:
        return videos.pixels.flatten(1).mean(1)

    def reduce(self, rows: Tensor) -> float:
        return float(rows.mean())


METRICS = {
    "a row depends on other videos": {
        "measure": lambda self, videos: videos.pixels.flatten(1).mean(1) - videos.pixels.mean()
    },
    "other rows when they are measured again": {
        "measure": lambda self, videos: torch.randn(len(videos.prompts))
    },
    "reduce depends on the order": {"reduce": lambda self, rows: float(rows[0])},
    "mean is declared": {"reduce": lambda self, rows: float(rows.median())},
    "reduce_many gives": {"reduce_many": lambda self, rows: 2 * rows.mean(dim=1)},
    "leave the bounds": {"bounds": (0.9, 1.0)},
    "direction is 'best'": {"direction": "best"},
    "must have a target": {"direction": "target"},
    "kind is 'vote'": {"kind": "vote"},
    "a metric of quality needs a direction": {"direction": "none", "kind": "quality"},
}


@pytest.mark.parametrize(("said", "changes"), METRICS.items(), ids=list(METRICS))
def test_a_metric_that_breaks_a_promise(said, changes):
    zoo = load_zoo()
    zoo.metrics.add("broken", type("Broken", (Mean,), changes), "a broken metric")
    with pytest.raises(AssertionError, match=said):
        check_metric("broken", "digits", zoo)


OURS = load_zoo()


@pytest.mark.parametrize("name", [metric.name for metric in OURS.metrics])
def test_our_own_metrics(name):
    try:
        rows = check_metric(name, "digits", OURS)
    except MissingPackage:
        pytest.skip("its package is not installed")
    assert len(rows) == 6


@pytest.mark.parametrize("name", ["semigroup-defect", "cache-distance"])
def test_our_own_metrics_with_rollouts(name):
    zoo = load_zoo(["tests.sizes.plugin"])
    backbone = {"name": "self-forcing", "size": "test-small"}
    rows = check_metric(name, "digits", zoo, backbone=backbone, prompts=3)
    assert rows.isfinite().all() and (rows > 0).all()
