"""The metrics of the digits, as the harness wants them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor

from salt_zoo.evaluation import Videos
from salt_zoo_digits import measures


class _Score:
    """A measure of every video, averaged."""

    better: Literal["higher", "lower"]
    own_steps = None
    of: Callable[[Tensor, Sequence[str]], Tensor]

    def __init__(self, config: Any, zoo: Any) -> None:
        pass

    def measure(self, videos: Videos) -> Tensor:
        return type(self).of(videos.pixels, videos.prompts)

    def reduce(self, rows: Tensor) -> float:
        return float(rows.mean())


class Motion(_Score):
    better = "higher"
    of = staticmethod(measures.motion_correct)


class Rigidity(_Score):
    better = "lower"
    of = staticmethod(measures.rigidity_error)
