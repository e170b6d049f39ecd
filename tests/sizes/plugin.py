"""A plugin with sizes of Wan for digits: a teacher that is wider and deeper than its student."""

from __future__ import annotations

from typing import Any, Literal

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from salt_zoo import hookimpl
from salt_zoo_digits.size import TRANSFORMER, DigitsSize


class _Random(DigitsSize):
    """Weights that are the same every time, in place of those of a file."""

    changes: dict[str, Any]

    def __init__(self, config: Any, zoo: Any) -> None:
        super().__init__(config, zoo)
        self.causal_weights = None

    def transformer(self, start: Literal["teacher", "random"]) -> WanTransformer3DModel:
        if start == "random":
            return WanTransformer3DModel(**{**TRANSFORMER, **self.changes})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(self.changes))
            return WanTransformer3DModel(**{**TRANSFORMER, **self.changes})

    def fingerprint(self) -> dict[str, str]:
        return {"changes": repr(self.changes)}


class Small(_Random):
    changes = {"num_layers": 2, "ffn_dim": 64}


class Large(_Random):
    changes = {"num_layers": 6, "num_attention_heads": 6, "ffn_dim": 320}


class Longer(_Random):
    changes = {"num_layers": 1}
    latent_shape = (1, 12, 16, 16)


class Reader(_Random):
    """It reads prompts of other words."""

    changes = {"num_layers": 1}

    def encode_prompts(self, prompts: Any, device: Any) -> dict[str, torch.Tensor]:
        return {"text": torch.zeros(len(prompts), 3, 5, device=device)}


@hookimpl
def register(zoo):
    for name, size in (("small", Small), ("large", Large), ("longer", Longer), ("reader", Reader)):
        zoo.sizes.add(f"test-{name}", size, "for tests")
