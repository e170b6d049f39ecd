"""`salt-zoo prepare text`: prompts through a backbone's text encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from salt_zoo.config.parts import Part, configure_part
from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.networks.condition import negative_prompt
from salt_zoo.io.packed import PackedFolder
from salt_zoo.io.prompt_files import read_prompt_file
from salt_zoo.plugin.manager import Zoo
from salt_zoo.preparation.shards import Progress, prepare_shards


class PrepareTextConfig(StrictModel):
    """What is encoded: the prompts of a dataset, or of a file."""

    #: Whose text encoder.
    backbone: Part
    #: All splits of it are encoded.
    dataset: Part | None = None
    #: Instead of `dataset`: a text file with a prompt a line, a table (.csv, .tsv, .json, .jsonl,
    #: .parquet), or the folder of a data set of the hub.
    prompts: Path | None = None
    #: Of the tables; None is `prompt`, `prompt_en`, `caption` or `text`.
    column: str | None = None
    #: Prompts that are encoded at a time.
    batch_size: Annotated[int, Field(ge=1)] = 16
    #: Prompts of one file, which one process makes.
    shard_size: Annotated[int, Field(ge=1)] = 512

    @model_validator(mode="after")
    def _one_source(self) -> PrepareTextConfig:
        if (self.dataset is None) == (self.prompts is None):
            raise ValueError("give either dataset or prompts")
        return self


def prepare_text(
    config: PrepareTextConfig, zoo: Zoo, folder: Path, device: Any, progress: Progress
) -> PackedFolder:
    """Write what `folder` lacks of the prompts' encodings; see `PackedFolder`.

    The negative prompt and the empty one are the first two, so that training needs no text encoder.
    """
    options = configure_part(zoo.backbones, config.backbone, zoo, "prepare text: backbone")
    backbone = zoo.backbones.create(config.backbone["name"], options, zoo).to(device)
    nothing = [negative_prompt(backbone), ""]
    prompts = list(dict.fromkeys([*nothing, *_prompts(config, zoo)]))
    header = {
        "kind": "text",
        "unconditional": nothing,
        "encoder": dict(backbone.encoder("text")),
        "device": device.type,  # UMT5 is bfloat16 on CUDA
        "batch_size": config.batch_size,
        "shard_size": config.shard_size,
    }
    return prepare_shards(
        folder,
        header,
        prompts,
        config.batch_size,
        lambda rows: backbone.encode_once(prompts[rows.start : rows.stop]),
        progress,
    )


def _prompts(config: PrepareTextConfig, zoo: Zoo) -> list[str]:
    if config.prompts is not None:
        return read_prompt_file(config.prompts, config.column)
    assert config.dataset is not None
    options = configure_part(zoo.datasets, config.dataset, zoo, "prepare text: dataset")
    dataset = zoo.datasets.create(config.dataset["name"], options, zoo)
    splits = ("train", "validation", "test")
    return [prompt for split in splits for prompt in dataset.prompts(split)]
