"""The size `digits`: a Wan of 0.3 M parameters on 16x16 pixels, without a VAE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor

from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.transfers import send
from salt_zoo.core.protocols import Condition, Encoder
from salt_zoo.io.files.regular import expanded
from salt_zoo.io.files.storage import digest, file_digest
from salt_zoo.plugin.manager import Zoo
from salt_zoo_digits.data import DIRECTIONS, FRAMES, SIZE, SPEEDS, parse
from salt_zoo_wan.checkpoint.files import find_checkpoint
from salt_zoo_wan.checkpoint.load import load_transformer
from salt_zoo_wan.sizes import WanSizeDefaults

#: The shipped teacher, a diffusers folder made by `salt-zoo pretrain digits-teacher`.
TEACHER = Path(__file__).parent / "weights" / "teacher"
#: The shipped causal student before distillation, by `salt-zoo pretrain digits-causal`.
CAUSAL = Path(__file__).parent / "weights" / "causal"

COORDINATES = 3
#: Mean and standard deviation of the training videos' pixels: latents have unit variance.
MEAN, DEVIATION = 0.0748, 0.2263

#: Words that prompts can hold, each a one-hot row; the last stands for the empty prompt.
VOCABULARY = (*map(str, range(10)), *DIRECTIONS, *SPEEDS, "")

TRANSFORMER = {
    "patch_size": (1, 4, 4),
    "num_attention_heads": 4,
    "attention_head_dim": 16,
    "in_channels": 2 + 3 * COORDINATES,
    "out_channels": 1,
    "text_dim": len(VOCABULARY),
    "freq_dim": 64,
    "ffn_dim": 256,
    "num_layers": 4,
    "cross_attn_norm": True,
    "rope_max_seq_len": 128,
}


class DigitsSizeConfig(StrictModel):
    """Options of the size `digits`."""

    #: A folder or file of weights, as `backbone.initial` takes them; null is the shipped teacher.
    weights: Path | None = None


class DigitsSize(WanSizeDefaults):
    """The tiny Wan and its codecs: words as one-hot tokens, pixels normalised."""

    version = 1
    Config = DigitsSizeConfig

    latent_shape = (1, FRAMES, SIZE, SIZE)
    frame_size = (SIZE, SIZE)
    frame_rate = 4.0
    guidance_scale = 2.0
    negative_prompt = ""
    coordinates = COORDINATES

    def __init__(self, config: DigitsSizeConfig, zoo: Zoo) -> None:
        self.weights = config.weights or TEACHER
        #: Where causal students start; those of another teacher start from its weights.
        self.causal_weights = None if config.weights else CAUSAL
        if self.transformer_config is None and type(self).transformer is DigitsSize.transformer:
            self.transformer_config = TRANSFORMER  # no transformer need be made to know it
        index = {word: i for i, word in enumerate(VOCABULARY)}
        self._words = index
        self._rows = torch.eye(len(VOCABULARY))

    def transformer(self, start: Literal["teacher", "random"]) -> WanTransformer3DModel:
        config = self.transformer_config or TRANSFORMER
        if start == "random":
            model = WanTransformer3DModel(**config)
        else:
            with _or_made_anew():
                model = load_transformer(self._there(), config)
        return model

    def transformer_files(self) -> Path:
        return self._there()

    def encode_prompts(self, prompts: Sequence[str], device: torch.device | str) -> Condition:
        """`text`: `[B, 3, words]`, one row each for digit, direction and speed; "" is no prompt."""
        rows = []
        for prompt in prompts:
            words = ["", "", ""]
            if prompt:
                command = parse(prompt)
                words = [str(command.digit), command.direction, command.speed]
            rows.append([self._words[word] for word in words])
        return {"text": send(self._rows[torch.tensor(rows)], device)}

    def encoder(self, of: Encoder) -> dict[str, str]:
        made = VOCABULARY if of == "text" else (MEAN, DEVIATION)
        return {"vocabulary" if of == "text" else "normalisation": digest(made)}

    def encode_video(self, video: Tensor) -> Tensor:
        return (video - MEAN) / DEVIATION

    def decode_video(self, latents: Tensor) -> Tensor:
        return latents * DEVIATION + MEAN

    def fingerprint(self) -> dict[str, str]:
        with _or_made_anew():
            files = find_checkpoint(self._there()).files
        return {f"teacher/{path.name}": file_digest(path) for path in files}

    def _there(self) -> Path:
        if not expanded(self.weights).exists():
            raise ZooError(
                f"{self.weights}: there is no teacher; "
                "make one with 'salt-zoo pretrain digits-teacher --out DIR'"
            )
        return self.weights


@contextmanager
def _or_made_anew() -> Iterator[None]:
    """Says of a teacher that cannot be read how to make one."""
    hint = "'salt-zoo pretrain digits-teacher --out DIR'"
    try:
        yield
    except ZooError as error:
        text = str(error)
        raise ZooError(text if hint in text else f"{text}; or make one with {hint}") from None
