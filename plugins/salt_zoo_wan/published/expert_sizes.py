"""The published sizes of two networks: Wan 2.2's A14B."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.files.regular import expanded
from salt_zoo.plugin.manager import Zoo
from salt_zoo_wan.checkpoint.files import EXPERT_FOLDERS, EXPERTS
from salt_zoo_wan.experts.records import check_expert, read_boundary
from salt_zoo_wan.published.published_options import ExpertsConfig
from salt_zoo_wan.published.published_size import PublishedSize
from salt_zoo_wan.published_configs import PUBLISHED, Published
from salt_zoo_wan.sizes import Experts


class Experts22(PublishedSize):
    """Wan 2.2's A14B: two experts with Wan 2.1's VAE, which share the times of one flow."""

    Config = ExpertsConfig
    config: ExpertsConfig
    guidance_scale = 4.0  # Wan's for high noise; for low noise it has 3

    def __init__(self, config: ExpertsConfig, zoo: Zoo) -> None:
        super().__init__(_of_one_folder(config), zoo)
        boundary = PUBLISHED[self.name].boundary
        if config.expert != "both" or boundary is None:
            (self.expert_part,) = self.transformers
            check_expert(self.config_file(), self.expert_part)
            return
        if self.file is not None and not _own_folders(config):
            raise ZooError(
                f"{self.file}: is of one network and {self.name!r} has two; set expert to low or "
                "high, or give a folder of both: diffusers' (transformer, transformer_2) or Wan's "
                f"own ({', '.join(EXPERT_FOLDERS.values())})"
            )
        if self.file is None and self.components.is_local:
            high, _ = (self.components.folder(part) for part in self.transformers)
            boundary = read_boundary(high) or boundary
        sides: dict[str, Any] = {
            side: type(self)(config.model_copy(update={"expert": side}), zoo)
            for side in ("high", "low")
        }
        self.experts = Experts(sides["high"], sides["low"], boundary)

    def fingerprint(self) -> dict[str, str]:
        found = super().fingerprint()
        if self.experts is not None and self.experts.boundary != PUBLISHED[self.name].boundary:
            found["boundary_ratio"] = repr(self.experts.boundary)
        return found

    def _files(self) -> dict[str, Path]:
        if self.experts is None or self.file is None:
            return super()._files()
        two = self.experts.high, self.experts.low
        return {part: place for part, one in zip(EXPERTS, two, strict=True)
                if (place := one.transformer_files())}  # fmt: skip

    def _transformers(self, published: Published) -> tuple[str, ...]:
        every = published.transformers
        return {"both": every, "high": every[:1], "low": every[1:]}[self.config.expert]


def _own_folders(config: ExpertsConfig) -> dict[str, Path]:
    """The folders of the experts by their sides, where `weights` is of Wan's own layout.

    Raises:
        ZooError: `expert` asks for one that is not there.
    """
    if config.weights is None:
        return {}
    root = expanded(config.weights)
    folders = {side: root / name for side, name in EXPERT_FOLDERS.items()}
    found = {side: folder for side, folder in folders.items() if folder.is_dir()}
    wanted = EXPERT_FOLDERS if config.expert == "both" else (config.expert,)
    missing = [folders[side].name for side in wanted if side not in found]
    if found and missing:
        raise ZooError(
            f"{root}: has {', '.join(folder.name for folder in found.values())} and no "
            f"{missing[0]}, which expert={config.expert} needs (backbone.options); fetch it, or "
            f"set expert to {' or '.join(found)}"
        )
    return found


def _of_one_folder(config: ExpertsConfig) -> ExpertsConfig:
    """Where `weights` is a folder of Wan's own layout with both networks, that of the expert; of
    both that for high noise, whose structure is the other's."""
    found = _own_folders(config)
    if not found:
        return config
    own = found["high" if config.expert == "both" else config.expert]
    return config.model_copy(update={"weights": str(own)})


class TextExperts22(Experts22):
    """Wan 2.2's A14B from text."""

    name = "wan2.2-t2v-a14b"


class ImageExperts22(Experts22):
    """Wan 2.2's A14B from a first frame."""

    name = "wan2.2-i2v-a14b"
    guidance_scale = 3.5
