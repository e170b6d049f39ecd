"""Whether a metric scores videos as every one does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from salt_zoo.config.parts import configure_part, named
from salt_zoo.core.protocols import Condition
from salt_zoo.evaluation.videos import (
    Videos,
    evaluation_draws,
    evaluation_prompts,
    make_videos,
    measure,
)
from salt_zoo.plugin.isolation.checked_metric import CheckedMetric, make_metric
from salt_zoo.plugin.isolation.foreign import BrokenPart
from salt_zoo.plugin.isolation.metric_reading import Reading
from salt_zoo.plugin.manager import Zoo
from salt_zoo.rollout.generate import SamplingConfig

#: Relative: sums of other batches are rounded otherwise.
TOLERANCE = 1e-3


def check_metric(
    metric: str | Mapping[str, Any],
    dataset: str | Mapping[str, Any],
    zoo: Zoo,
    *,
    backbone: str | Mapping[str, Any] | None = None,
    prompts: int = 6,
) -> Tensor:
    """Measure real videos, or those of an untrained student, and check that

    - a video's row depends on that video alone, not on the others of its batch, and is the same
      when it is measured again;
    - `reduce` does not depend on the order of the rows, is their mean where the metric declares
      `mean`, and agrees with `reduce_many`;
    - scores lie within `bounds`;
    - what it declares fits together: `direction` and `kind` are ones that there are, a metric of
      quality has a direction, and `direction = "target"` has a `target`.

    Args:
        metric, dataset: as in a study's YAML.
        backbone: of the videos; None measures the dataset's real ones.
        prompts: different prompts of the test split, a video of each.

    Returns:
        The rows, `[N]` or `[N, D]`.

    Raises:
        AssertionError: one of these is not so.
        ForeignError: the metric breaks its protocol.
    """
    part = _part(metric)
    made = make_metric(part["name"], configure_part(zoo.metrics, part, zoo, "check_metric"), zoo)
    try:
        Reading.of(made, made.title)
    except BrokenPart as broken:
        raise AssertionError(str(broken)) from None
    made.prepare()
    videos = _videos(_part(dataset), None if backbone is None else _part(backbone), zoo, prompts)
    rows, again, first, second = (
        measure({"metric": made}, some)["metric"]
        for some in (videos, videos, _some(videos, 0, prompts // 2), _some(videos, prompts // 2))
    )
    assert _near(rows, again), "the same videos have other rows when they are measured again"
    assert _near(rows, torch.cat([first, second])), "a row depends on other videos of its batch"
    if not rows.isnan().any():
        _check_reduction(made, rows)
    return rows


def _check_reduction(metric: CheckedMetric, rows: Tensor) -> None:
    number = metric.reduce(rows)
    assert _same(metric.reduce(rows.flip(0)), number), "reduce depends on the order of the rows"
    if metric.mean:
        mean = float(rows.mean())
        assert _same(number, mean), f"mean is declared, and reduce is {number:g}, not {mean:g}"
    if metric.reduce_many is not None:
        many = float(metric.reduce_many(rows[None])[0])
        assert _same(many, number), f"reduce_many gives {many:g} where reduce gives {number:g}"
    bounds = metric.bounds
    if bounds is not None and rows.ndim == 1:
        low, high = bounds
        least, most = float(rows.min()), float(rows.max())
        assert (low is None or low <= least) and (high is None or most <= high), (
            f"scores from {least:g} to {most:g} leave the bounds {bounds}"
        )


def _videos(
    dataset: dict[str, Any], backbone: dict[str, Any] | None, zoo: Zoo, count: int
) -> Videos:
    options = configure_part(zoo.datasets, dataset, zoo, "check_metric: dataset")
    data = zoo.datasets.create(dataset["name"], options, zoo)
    prompts = evaluation_prompts(data, "test", count)
    rng = evaluation_draws(0, "test", len(prompts), "cpu")
    if backbone is None:
        return Videos(data.real(prompts, rng, "test"), prompts, rng, data)
    options = configure_part(zoo.backbones, backbone, zoo, "check_metric: backbone")
    made = zoo.backbones.create(backbone["name"], options, zoo)
    network = made.network("student").eval()
    return make_videos(network, made, data, prompts, rng, SamplingConfig(steps=1), split="test")


def _part(part: str | Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = named(part if isinstance(part, str) else dict(part))
    return found


def _some(videos: Videos, first: int, last: int | None = None) -> Videos:
    images = videos.images

    def shifted(places: range) -> Condition:
        assert images is not None
        return images(range(first + places.start, first + places.stop))

    return replace(
        videos,
        pixels=videos.pixels[first:last],
        prompts=list(videos.prompts)[first:last],
        rng=videos.rng.for_rows(list(videos.rng.rows)[first:last]),
        images=None if images is None else shifted,
    )


def _near(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=TOLERANCE, atol=1e-5, equal_nan=True)


def _same(one: float, other: float) -> bool:
    both_nan = math.isnan(one) and math.isnan(other)
    return both_nan or math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-5)
