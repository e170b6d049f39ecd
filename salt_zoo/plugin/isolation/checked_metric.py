"""Metrics of plugins inside a frame: their errors name them, what they return is what
`salt_zoo.core.protocols.Metric` says, and what they are given is their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, get_args

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from salt_zoo.core.base.errors import TrainingError, ZooError, shown, text_of
from salt_zoo.core.networks.blocks import Sampler
from salt_zoo.core.protocols import Metric, MetricDefaults
from salt_zoo.plugin.isolation.foreign import BrokenPart, ForeignError, foreign
from salt_zoo.plugin.isolation.surroundings import settings_kept

_DEFAULTS = MetricDefaults()


def make_metric(name: str, options: BaseModel, zoo: Any) -> CheckedMetric:
    """A registered metric, checked whenever it is called."""
    made = zoo.metrics.create(name, options, zoo)
    return CheckedMetric(made, f"metric {zoo.metrics[name]}")


class CheckedMetric:
    """A metric whose errors and breaches of the protocol are a `ForeignError` that begins with
    `title`. Other attributes are the metric's own."""

    def __init__(self, metric: Metric, title: str) -> None:
        self.metric, self.title = metric, title
        with foreign(title):
            for wanted in ("direction", "measure", "reduce"):
                if not hasattr(metric, wanted):
                    raise BrokenPart(
                        f"{title}: it lacks {wanted!r}; see salt_zoo.core.protocols.Metric"
                    )
            self.direction: Any = metric.direction
            #: The defaults of what a metric may leave out.
            self.own_steps: Any = self._optional("own_steps")
            self.own_sampler: Any = self._optional("own_sampler")
            self.whole_video: Any = self._optional("whole_video")
            self.mean: Any = self._optional("mean")
            self.bounds: Any = self._optional("bounds")
            self._prepare: Callable[[], None] = self._optional("prepare")
            if self.own_sampler not in get_args(Sampler):
                raise BrokenPart(
                    f"{title}: own_sampler is {shown(self.own_sampler)}; it must be one of "
                    f"{', '.join(get_args(Sampler))}"
                )
            if not isinstance(self.whole_video, bool):
                raise BrokenPart(
                    f"{title}: whole_video is {shown(self.whole_video)}; it must be True or False"
                )

    @property
    def has_clips(self) -> bool:
        """Whether it can score clips out of the middle of longer videos."""
        return self.own_steps is None and not self.whole_video

    def prepare(self) -> None:
        """Fetch its weights, where it has any."""
        with settings_kept(), foreign(f"{self.title}, prepare()"):
            self._prepare()

    def _optional(self, name: str) -> Any:
        """A member of `MetricDefaults`: the metric's own, or the default."""
        return getattr(self.metric, name, getattr(_DEFAULTS, name))

    def __getattr__(self, name: str) -> Any:
        if name == "metric":  # not there yet
            raise AttributeError(name)
        return getattr(self.metric, name)

    def error(self, text: str) -> ForeignError:
        return ForeignError(f"{self.title}: {text}")

    def measure(self, videos: Any) -> Tensor:
        """The rows of `videos` on the CPU: `[N]` scores or `[N, D]` features, float32.

        Raises:
            ForeignError: the metric fails, or returns something else.
            TrainingError: it changed the network, which is of no use to others any more.
        """
        # its own, so that no metric works on what another one left
        own = replace(videos, pixels=videos.pixels.clone(), prompts=list(videos.prompts))
        with settings_kept(), self._unchanged(videos.network), self._named("measure()"):
            found = self.metric.measure(own)
        count = len(videos.prompts)
        if not isinstance(found, Tensor):
            raise self.error(f"measure() returned {shown(found)}; it must be a tensor of rows")
        if found.layout != torch.strided:
            raise self.error(f"measure() returned a {found.layout} tensor; make it dense")
        if found.ndim not in (1, 2) or len(found) != count or found.is_complex():
            raise self.error(
                f"measure() returned a tensor of the shape {list(found.shape)} for {count} videos; "
                f"it must be [{count}] scores or [{count}, D] features"
            )
        with self._named("measure()"):  # a tensor of the meta device has no numbers
            return found.detach().float().cpu()

    def reduce(self, rows: Tensor) -> float:
        """One number of any set of rows; NaN where the metric has none for them."""
        with self._named("reduce()"):
            found = self.metric.reduce(rows.clone())
            number = float(found) if _is_number(found) else None
        if number is None:
            raise self.error(f"reduce() returned {shown(found)}; it must be one number")
        return number

    @property
    def reduce_many(self) -> Callable[[Tensor], Tensor] | None:
        """`reduce` of `[R, N, D]` rows to `[R]` numbers, where the metric has it."""
        many = self._optional("reduce_many")
        return None if many is None else lambda rows: self._many(many, rows)

    def _many(self, many: Any, rows: Tensor) -> Tensor:
        with self._named("reduce_many()"):
            found = many(rows.clone())
        if not isinstance(found, Tensor) or found.shape != rows.shape[:1]:
            raise self.error(
                f"reduce_many() returned {shown(found)}; it must be {len(rows)} numbers"
            )
        return found.detach().cpu()

    @contextmanager
    def _named(self, part: str) -> Iterator[None]:
        try:
            with foreign(f"{self.title}, {part}"):
                yield
        except ForeignError:
            raise
        except ZooError as error:  # the plugin's own message need not name it
            raise self.error(text_of(error)) from error

    @contextmanager
    def _unchanged(self, network: Any) -> Iterator[None]:
        """Refuses to go on with a network whose weights a metric has changed."""
        if not isinstance(network, nn.Module):
            yield
            return
        before, modes = _versions(network), [(m, m.training) for m in network.modules()]
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            if _versions(network) != before:
                raise TrainingError(
                    f"{self.title}: measure() changed the weights of the network, which other "
                    "metrics look at, too; it must work on a copy"
                )


def _versions(network: nn.Module) -> list[int]:
    tensors = [*network.parameters(), *network.buffers()]
    return [tensor._version for tensor in tensors if not tensor.is_inference()]


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex()
    return hasattr(value, "__float__") and not isinstance(value, str)
