"""The published sizes of two networks: Wan 2.2's A14B."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from salt_zoo.core.base.errors import ZooError
from salt_zoo.plugin.manager import Zoo
from salt_zoo_wan.checkpoint.files import EXPERT_FOLDERS
from salt_zoo_wan.experts.records import check_expert, read_boundary
from salt_zoo_wan.published.published_options import ExpertsConfig
from salt_zoo_wan.published.published_sizes import PublishedSize
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
        if self.file is not None:
            raise ZooError(
                f"{self.file}: is of one network and {self.name!r} has two; set expert to low or "
                "high, or give a diffusers folder with transformer and transformer_2"
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

    def _transformers(self, published: Published) -> tuple[str, ...]:
        every = published.transformers
        return {"both": every, "high": every[:1], "low": every[1:]}[self.config.expert]


def _of_one_folder(config: ExpertsConfig) -> ExpertsConfig:
    """Where `weights` is a folder of Wan's own layout with both networks, that of the expert."""
    if config.weights is None or config.expert == "both":
        return config
    inner = Path(config.weights).expanduser() / EXPERT_FOLDERS[config.expert]
    return config.model_copy(update={"weights": str(inner)}) if inner.is_dir() else config


class TextExperts22(Experts22):
    """Wan 2.2's A14B from text."""

    name = "wan2.2-t2v-a14b"


class ImageExperts22(Experts22):
    """Wan 2.2's A14B from a first frame."""

    name = "wan2.2-i2v-a14b"
    guidance_scale = 3.5
