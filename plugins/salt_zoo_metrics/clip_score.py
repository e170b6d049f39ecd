"""Agreement of video and prompt, by a CLIP of the library open_clip."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.base.errors import ZooError, did_you_mean, reason
from salt_zoo.core.protocols import Direction, MetricDefaults
from salt_zoo.evaluation.videos import Videos
from salt_zoo.plugin.manager import Zoo
from salt_zoo_metrics.extra import need
from salt_zoo_metrics.frames import eight_bit, rgb, spread


class ClipScoreConfig(StrictModel):
    """Options of `clip-score`; scores of different models or weights cannot be compared."""

    #: An architecture of open_clip.
    model: str = "ViT-B-32"
    #: A tag of open_clip, whose weights are downloaded once (0.6 GB), or a local file of weights.
    pretrained: str = "laion2b_s34b_b79k"
    #: Frames of each video that are looked at, evenly spread from the first to the last; null: all.
    frames: Annotated[int, Field(ge=1)] | None = 8
    #: Frames encoded at a time.
    batch_size: Annotated[int, Field(ge=1)] = 32


class ClipScore(MetricDefaults):
    """The cosine of prompt and frame, in [-1, 1], averaged over frames (CLIPSIM, arXiv 2104.14806):
    `mean_f cos(image_f, text)`.

    Neither scaled by 100 nor cut at 0. Frames are resized and their middle is cropped as the model
    was trained; what a prompt has beyond the model's 77 tokens is ignored. NaN for a video that
    holds a NaN.
    """

    version = 1
    Config = ClipScoreConfig
    direction: Direction = "higher"
    mean = True
    bounds = (-1.0, 1.0)

    def __init__(self, config: ClipScoreConfig, zoo: Zoo) -> None:
        models = need("open_clip", "clip-score").list_models()
        if config.model not in models:
            raise ZooError(
                f"metric 'clip-score': open_clip has no model {config.model!r}; "
                f"{did_you_mean(config.model, models)}"
            )
        self.config = config
        self._model: Any = None

    def prepare(self) -> None:
        """Read the weights, downloading them where `pretrained` is a tag.

        Raises:
            ZooError: they cannot be had, or are of another model.
        """
        if self._model is not None:
            return
        open_clip, config = need("open_clip", "clip-score"), self.config
        tags = open_clip.list_pretrained_tags_by_model(config.model)
        if config.pretrained not in tags and not Path(config.pretrained).is_file():
            raise ZooError(
                f"metric 'clip-score': pretrained {config.pretrained!r} is neither a local file "
                f"nor a tag of {config.model}; {did_you_mean(config.pretrained, tags)}"
            )
        try:
            model, _, preprocess = open_clip.create_model_and_transforms(
                config.model, pretrained=config.pretrained
            )
            tokenizer = open_clip.get_tokenizer(config.model)
        except Exception as error:  # no network, another model's weights, ...
            raise ZooError(
                f"metric 'clip-score': {config.model} cannot be made with {config.pretrained} "
                f"({reason(error)}); give a local file as the option `pretrained`"
            ) from None
        self._model, self._preprocess, self._tokenizer = model.eval(), preprocess, tokenizer

    @torch.inference_mode()
    def measure(self, videos: Videos) -> Tensor:
        self.prepare()
        device = torch.device(videos.rng.device)
        self._model.to(device)
        texts = self._texts(list(videos.prompts), device)
        scores = [
            torch.tensor(torch.nan)  # bytes would hide it
            if video.isnan().any()
            else (self._images(video, device) @ text).mean()
            for video, text in zip(videos.pixels, texts, strict=True)
        ]
        return torch.stack(scores)

    def _texts(self, prompts: list[str], device: torch.device) -> Tensor:
        """Unit vectors `[N, width]` of the prompts, each encoded once."""
        distinct = list(dict.fromkeys(prompts))
        parts = [
            self._model.encode_text(self._tokenizer(distinct[i : i + 32]).to(device))
            for i in range(0, len(distinct), 32)
        ]
        found = functional.normalize(torch.cat(parts).float(), dim=-1).cpu()
        return found[[distinct.index(prompt) for prompt in prompts]]

    def _images(self, video: Tensor, device: torch.device) -> Tensor:
        """Unit vectors `[frames, width]` of a video `[C, F, height, width]`."""
        from PIL import Image

        chosen = rgb(video[:, spread(video.shape[1], self.config.frames)])
        # through PIL, so that frames are resized exactly as they were for the model's training
        frames = rearrange(eight_bit(chosen).byte(), "f c h w -> f h w c").cpu().numpy()
        ready = torch.stack([self._preprocess(Image.fromarray(frame)) for frame in frames])
        parts = [
            self._model.encode_image(part.to(device))
            for part in ready.split(self.config.batch_size)
        ]
        return functional.normalize(torch.cat(parts).float(), dim=-1).cpu()

    def reduce(self, rows: Tensor) -> float:
        return float(rows.mean())
