"""Prompts from a file, and their latents where the user has some.

Distribution matching needs prompts only. Consistency distillation needs data, too, as latents: a
video VAE in the training loop would take longer than the training step.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import yaml
from pydantic import Field
from torch import Tensor

from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.base.errors import ZooError, shown
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.base.transfers import send
from salt_zoo.core.protocols import Sample
from salt_zoo.io.files.storage import digest
from salt_zoo.io.prompt_files import read_prompt_file
from salt_zoo.plugin.manager import Zoo

_BUNDLED = Path(__file__).with_name("prompts.yaml")


class PromptsConfig(StrictModel):
    """Options of the dataset `prompts`."""

    #: A text file, one prompt a line, or a table (.csv, .tsv, .json, .jsonl, .parquet) with a
    #: column `prompt`, `prompt_en`, `caption` or `text`; null is the bundled list of 64.
    file: Path | None = None
    #: Prompts kept back for validation, and as many for test.
    held_out: Annotated[int, Field(ge=1)] = 16
    #: A folder with a file for each training prompt, named by `latents_name(prompt)`, each with one
    #: tensor `latents` `[C, F, H, W]` of the backbone's shape. null: the data is prompts only.
    latents: Path | None = None


class Prompts:
    """The dataset `prompts`; its splits are disjoint.

    Which split a prompt is in depends on its text and its rank among the others' digests, not on
    its line, so that sorting the file changes nothing.
    """

    version = 1
    Config = PromptsConfig

    def __init__(self, config: PromptsConfig, zoo: Zoo) -> None:
        self.config = config
        lines = read_prompts(config.file)
        where = str(config.file or "the bundled prompts")
        self._splits = split_prompts(lines, config.held_out, where)
        if config.latents and not config.latents.is_dir():
            raise ZooError(f"{config.latents}: there is no such folder; see dataset.latents")

    @staticmethod
    def holds_latents(config: PromptsConfig) -> bool:
        return config.latents is not None

    def prompts(self, split: str) -> list[str]:
        return list(self._splits[split])

    def sample(self, rng: KeyedRNG, split: str, videos: bool = True) -> Sample:
        """A prompt a row, with its latents as `video` if they are wanted.

        Raises:
            ZooError: the method wants data and there is none.
        """
        known = self._splits[split]
        prompts = [known[i] for i in rng.randint(len(known), "prompt")]
        return Sample(prompts, self._latents(prompts, rng) if videos else None)

    def real(
        self, prompts: Sequence[str], rng: KeyedRNG, split: str, frames: int | None = None
    ) -> None:
        """None: there are no real videos."""
        return None

    def fingerprint(self) -> dict[str, str]:
        found = {"prompts": digest(self._splits)}
        if self.config.latents:
            files = sorted(self.config.latents.glob("*.safetensors"))
            found["latents"] = digest([[path.name, _end_of(path)] for path in files])
        return found

    def _latents(self, prompts: Sequence[str], rng: KeyedRNG) -> Tensor:
        if self.config.latents is None:
            raise ZooError(
                "dataset 'prompts': the method needs data and these are prompts only; set "
                "dataset.latents to a folder of latents (one .safetensors a prompt), or choose a "
                "data-free method such as dmd (for a size that generates from first frames: the "
                "dataset 'prepared')"
            )
        rows = [
            load_latents(self.config.latents / latents_name(prompt), prompt) for prompt in prompts
        ]
        return send(torch.stack(rows), rng.device)


def split_prompts(lines: Sequence[str], held_out: int, where: str) -> dict[str, list[str]]:
    """Different prompts by split, ranked by their digests.

    Raises:
        ZooError: there are too few.
    """
    if len(lines) < 2 * held_out + 1:
        raise ZooError(
            f"{where}: {len(lines)} different prompts are too few to hold out 2 x {held_out}; add "
            "some or lower dataset.held_out"
        )
    ranked = sorted(lines, key=latents_name)
    test, validation = ranked[:held_out], ranked[held_out : 2 * held_out]
    return {"test": test, "validation": validation, "train": ranked[2 * held_out :]}


def _end_of(path: Path) -> str:
    """The size and a digest of a file's last 64 KiB: reading all latents would take minutes, and
    other latents have other last values."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - 2**16))
        return f"{size} {hashlib.sha256(file.read()).hexdigest()}"


def read_prompts(file: Path | None) -> list[str]:
    """The different prompts of a file in their order (`read_prompt_file`), or the bundled ones."""
    if file is None:
        lines = list(yaml.safe_load(_BUNDLED.read_text(encoding="utf-8")))
    else:
        try:
            lines = read_prompt_file(file)
        except ZooError as error:
            raise ZooError(f"{error}; see dataset.file") from None
    return list(dict.fromkeys(line.strip() for line in lines))


def latents_name(prompt: str) -> str:
    """The file name of a prompt's latents: 16 hexadecimal digits of its SHA-256."""
    return f"{hashlib.sha256(prompt.encode()).hexdigest()[:16]}.safetensors"


@functools.lru_cache(maxsize=256)
def load_latents(path: Path, prompt: str) -> Tensor:
    """The tensor `latents` `[C, F, H, W]` of a file, float32.

    Raises:
        ZooError: the file is missing, damaged or without that tensor.
    """
    import safetensors.torch

    try:
        tensors = safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise ZooError(
            f"{path}: there is no such file; it would hold latents of {shown(prompt, 40)}"
        ) from None
    except Exception as error:  # safetensors raises several kinds for a damaged file
        reason = (str(error).splitlines() or [""])[0][:100]
        raise ZooError(
            f"{path}: an incomplete or corrupt safetensors file ({reason}); write it again"
        ) from None
    if "latents" not in tensors or tensors["latents"].ndim != 4:
        raise ZooError(
            f"{path}: has no tensor 'latents' [C, F, H, W]; it has {sorted(tensors)[:3]}"
        )
    return tensors["latents"].float()
