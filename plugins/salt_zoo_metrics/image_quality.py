"""Quality of single frames without a reference, by a metric of the library pyiqa.

pyiqa is published under PolyForm-Noncommercial 1.0.0: commercial use needs another licence. That is
why it is an optional extra, which only this file imports.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.base.errors import ZooError, did_you_mean, reason
from salt_zoo.core.protocols import Direction, MetricDefaults
from salt_zoo.evaluation.videos import Videos
from salt_zoo.io.files.pickles import load_pickle
from salt_zoo.plugin.manager import Zoo
from salt_zoo_metrics.extra import need
from salt_zoo_metrics.frames import eight_bit, rgb, spread


class ImageQualityConfig(StrictModel):
    """Options of `image-quality`; the defaults are VBench's imaging quality."""

    #: A no-reference metric of pyiqa. `musiq-spaq` downloads 0.1 GB once; `piqe` needs no file.
    model: str = "musiq-spaq"
    #: A local file of its weights, for `musiq-spaq` `musiq_spaq_ckpt-358bb6af.pth`, instead of the
    #: download.
    weights: Path | None = None
    #: What pyiqa's number is multiplied by. null: 0.01 for the MUSIQs with a scale of 100, as
    #: VBench does, else 1.
    scale: Annotated[float, Field(gt=0)] | None = None
    #: Larger frames are first shrunk to so many pixels on their longer side; null: never.
    longer_side: Annotated[int, Field(ge=1)] | None = 512
    #: Frames of each video that are scored, evenly spread; null: all.
    frames: Annotated[int, Field(ge=1)] | None = None
    #: Frames scored at a time.
    batch_size: Annotated[int, Field(ge=1)] = 8


class ImageQuality(MetricDefaults):
    """The mean score of a video's frames; whether higher is better, pyiqa says.

    With the defaults VBench's dimension "imaging quality" (arXiv 2311.17982) in [0, 1],
    `mean_f MUSIQ(frame_f) / 100`, except that no codec lies between. NaN for a video that holds a
    NaN.
    """

    version = 1
    Config = ImageQualityConfig
    direction: Direction
    mean = True

    def __init__(self, config: ImageQualityConfig, zoo: Zoo) -> None:
        need("pyiqa", "image-quality")
        known = need("pyiqa.default_model_configs", "image-quality").DEFAULT_CONFIGS
        usable = [name for name, facts in known.items() if facts.get("metric_mode") == "NR"]
        if config.model not in usable:
            raise ZooError(
                f"metric 'image-quality': model {config.model!r} is not a no-reference metric of "
                f"pyiqa; {did_you_mean(config.model, usable)}"
            )
        self.config = config
        self.direction = "lower" if known[config.model].get("lower_better", False) else "higher"
        hundred = config.model in ("musiq", "musiq-spaq", "musiq-paq2piq")
        self.scale = config.scale or (0.01 if hundred else 1.0)
        self._model: Any = None

    def prepare(self) -> None:
        """Read the weights, downloading them where no file is given.

        Raises:
            ZooError: they cannot be had, or are of another model.
        """
        if self._model is not None:
            return
        pyiqa, config = need("pyiqa", "image-quality"), self.config
        options = {}
        if config.weights is not None:
            _check_file(config.weights)
            options["pretrained_model_path"] = str(config.weights)
        try:
            self._model = pyiqa.create_metric(config.model, device="cpu", **options)
        except Exception as error:  # no network, another model's weights, ...
            file = f"weights {config.weights}" if config.weights else "its weights"
            raise ZooError(
                f"metric 'image-quality': {config.model} cannot be made with {file} "
                f"({reason(error)}); give a local file as the option `weights`, or choose a model "
                f"that needs none, such as 'piqe'"
            ) from None

    @torch.inference_mode()
    def measure(self, videos: Videos) -> Tensor:
        self.prepare()
        device = torch.device(videos.rng.device)
        self._model.to(device)
        return torch.stack([self._score(video, device) for video in videos.pixels])

    def _score(self, video: Tensor, device: torch.device) -> Tensor:
        """The mean over the frames of one video `[C, F, height, width]`."""
        if video.isnan().any():  # pyiqa would end the whole study
            return torch.tensor(torch.nan)
        config = self.config
        chosen = rgb(video[:, spread(video.shape[1], config.frames)])
        scores = []
        for part in chosen.split(config.batch_size):
            frames = shrink(eight_bit(part.to(device)), config.longer_side) / 255
            try:
                scores.append(self._model(frames).float().flatten().cpu())
            except Exception as error:  # mostly frames smaller than the model can take
                size = "x".join(map(str, frames.shape[-2:]))
                raise ZooError(
                    f"metric 'image-quality': {config.model} cannot score frames of {size} pixels "
                    f"({reason(error)})"
                ) from None
        return torch.cat(scores).mean() * self.scale

    def reduce(self, rows: Tensor) -> float:
        return float(rows.mean())


def shrink(frames: Tensor, longer_side: int | None) -> Tensor:
    """Frames `[B, C, height, width]` of 8-bit values, no larger than `longer_side`, rounded again.

    As VBench does before MUSIQ: bilinear without antialiasing.
    """
    height, width = frames.shape[-2:]
    if longer_side is None or max(height, width) <= longer_side:
        return frames
    ratio = longer_side / max(height, width)
    size = [max(1, int(ratio * height)), max(1, int(ratio * width))]
    return functional.interpolate(frames, size=size, mode="bilinear", antialias=False).round()


def _check_file(path: Path) -> None:
    """pyiqa would unpickle whatever code the file holds; here plain tensors only pass."""
    if not path.is_file():
        raise ZooError(f"metric 'image-quality': weights {path}: there is no such file")
    try:
        load_pickle(path)
    except Exception as error:
        raise ZooError(
            f"metric 'image-quality': weights {path}: not a file of plain tensors ({reason(error)})"
        ) from None
