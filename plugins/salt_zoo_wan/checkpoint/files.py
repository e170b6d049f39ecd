"""Finding the files of a transformer's weights: one file, shards, a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.files.regular import expanded
from salt_zoo_wan.checkpoint.formats import ENDINGS
from salt_zoo_wan.checkpoint.read import DISTRIBUTED, read_tensors

_INDEX = ".index.json"
_SHARD = re.compile(r"(?P<stem>.+)-(?P<part>\d{3,5})-of-(?P<count>\d{3,5})(?P<ending>\.\w+)$")
#: Files that lie beside a transformer's in the folders of Wan and of pipelines.
_BESIDE = re.compile(
    r"vae|t5|clip|text_encoder|optimi[sz]er|scheduler|random_state|rng_state|training_args|lora"
    r"|critic|fake_score|discriminator",
    re.IGNORECASE,
)
#: The folders of Wan 2.2's two networks in its own layout.
EXPERT_FOLDERS = {"high": "high_noise_model", "low": "low_noise_model"}
#: The names that diffusers and Wan's own code give; the first that is there is taken.
_STOCK = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


@dataclass(frozen=True)
class CheckpointFiles:
    """The files that hold a transformer's tensors together, and the `config.json` beside them."""

    files: tuple[Path, ...]
    config: Path | None = None

    def read(self) -> Mapping[str, Any]:
        """The content of all files together.

        Raises:
            ZooError: one is missing or damaged, or two hold the same tensor.
        """
        content: dict[str, Any] = {}
        for file in self.files:
            part = read_tensors(file)
            if len(self.files) == 1:
                return part
            if twice := content.keys() & part.keys():
                raise ZooError(f"{file}: holds {min(twice)!r}, which another shard holds, too")
            content |= part
        return content


def find_checkpoint(path: Path) -> CheckpointFiles:
    """The weights that `path` means: a file; an index of shards, or one shard of several; a folder
    of diffusers (a transformer's, a pipeline's, a student's), of Wan's own code, or with one file.

    Raises:
        ZooError: there is none, or a shard is missing, or several could be meant.
    """
    path = expanded(path)
    if path.is_dir():
        return _in_folder(path)
    if not path.is_file():
        raise ZooError(f"{path}: there is no such file or folder")
    beside = path.parent / "config.json"
    config = (
        beside if path.name.startswith("diffusion_pytorch_model") and beside.is_file() else None
    )
    if path.name.endswith(_INDEX):
        return CheckpointFiles(_of_index(path), config)
    shard = _SHARD.match(path.name)
    if shard and int(shard["count"]) > 1:
        return CheckpointFiles(_siblings(path, shard), config)
    return CheckpointFiles((path,), config)


#: The parts of a diffusers pipeline with an expert for high and one for low noise.
EXPERTS = ("transformer", "transformer_2")
#: Their folders, as diffusers and Wan's own code name them.
_EXPERT_FOLDERS = (EXPERTS, tuple(EXPERT_FOLDERS.values()))


def find_experts(place: Path) -> dict[str, Path]:
    """The folders of both experts by their parts of a pipeline, in a folder of two networks (a
    pipeline's, a student's, Wan's own); empty for what is of one."""
    for root in (expanded(place), expanded(place) / "student"):
        for names in _EXPERT_FOLDERS:
            folders = [root / name for name in names]
            if all(folder.is_dir() for folder in folders):
                return dict(zip(EXPERTS, folders, strict=True))
    return {}


def _of_index(index: Path) -> tuple[Path, ...]:
    """The shards that an index names; none may lie elsewhere."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        plain = [name for name in names if Path(name).name == name]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ZooError(
            f"{index}: not an index of shards ({type(error).__name__}); download it again"
        ) from None
    if not names or plain != names:
        raise ZooError(f"{index}: names no files of its own folder; download it again")
    return _all_there([index.parent / name for name in names], index)


def _siblings(path: Path, shard: re.Match[str]) -> tuple[Path, ...]:
    count, width = int(shard["count"]), len(shard["part"])
    names = [
        f"{shard['stem']}-{part:0{width}d}-of-{shard['count']}{shard['ending']}"
        for part in range(1, count + 1)
    ]
    return _all_there(
        [path.with_name(name) for name in names],
        path,
        f"part {int(shard['part'])} of {count} of a model; ",
    )


def _all_there(files: list[Path], named: Path, what: str = "") -> tuple[Path, ...]:
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ZooError(
            f"{named}: {what}{missing[0]}{more} of the model's {len(files)} shards is not beside "
            "it; fetch all of them"
        )
    return tuple(files)


def _in_folder(folder: Path) -> CheckpointFiles:
    if (folder / ".metadata").is_file() or any(folder.glob("*.distcp")):
        raise ZooError(f"{folder}: {DISTRIBUTED.replace('FOLDER', str(folder))}")
    if (folder / "zero_to_fp32.py").is_file() or any(folder.rglob("*zero_pp_rank_*")):
        raise ZooError(
            f"{folder}: a DeepSpeed checkpoint; make one file of it with 'python "
            "zero_to_fp32.py . OUT', which DeepSpeed puts into the folder"
        )
    if (folder / EXPERT_FOLDERS["high"]).is_dir() or (folder / "transformer_2").is_dir():
        raise ZooError(
            f"{folder}: a Wan 2.2 of two networks; expected one: give the folder of one of them, "
            "or a size of two with expert=both"
        )
    for inner in (folder / "transformer", folder / "student" / "transformer"):
        if inner.is_dir():
            if not (inner / "config.json").is_file():
                raise ZooError(
                    f"{folder}: has no whole transformer ({inner.relative_to(folder)}/config.json)"
                )
            return _in_folder(inner)
    config = folder / "config.json"
    files = _files(folder)
    if files is None:
        dcp = [inner for inner in folder.iterdir() if (inner / ".metadata").is_file()]
        if dcp:
            return _in_folder(dcp[0])
        raise ZooError(f"{folder}: a folder without a whole transformer; {_instead(folder)}")
    if not config.is_file() and files[0].name.startswith("diffusion_pytorch_model"):
        raise ZooError(
            f"{folder}: a folder without a whole transformer (its config.json is missing); "
            f"fetch that, or give {files[0].name} itself"
        )
    return CheckpointFiles(files, config if config.is_file() else None)


def _files(folder: Path) -> tuple[Path, ...] | None:
    """The files of the transformer in a folder without parts; None where there is none."""
    for name in _STOCK:
        if (folder / name).is_file():
            return (folder / name,)
        if (folder / f"{name}{_INDEX}").is_file():
            return _of_index(folder / f"{name}{_INDEX}")
    indices = sorted(folder.glob(f"*{_INDEX}"))
    if len(indices) == 1:
        return _of_index(indices[0])
    every = [path for path in sorted(folder.iterdir()) if path.suffix in ENDINGS and path.is_file()]
    # what is nothing but a LoRA or a VAE is read, to say what it is
    found = [path for path in every if not _BESIDE.search(path.name)] or every[:1]
    models: dict[str, Path] = {}
    for path in found:
        shard = _SHARD.match(path.name)
        models.setdefault(f"{shard['stem']}{shard['ending']}" if shard else path.name, path)
    if len(models) > 1:
        names = ", ".join(list(models)[:4])
        raise ZooError(f"{folder}: has several files of weights ({names}); give the one meant")
    return find_checkpoint(next(iter(models.values()))).files if models else None


def _instead(folder: Path) -> str:
    """What is to be given in place of a folder without a transformer."""
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and _looks_whole(path)]
    if inner:
        return f"give {inner[0]}" if len(inner) == 1 else f"give one of its folders ({inner[0]})"
    return "give a diffusers folder, Wan's own, or one file of weights"


def _looks_whole(folder: Path) -> bool:
    return any(path.suffix in ENDINGS for path in folder.iterdir())
