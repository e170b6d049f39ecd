"""What the text encoder, the VAE and the image encoder of a run take, and which of them stay."""

from __future__ import annotations

from salt_zoo.config.run import Resolved
from salt_zoo.core.dataset import EncodedFirstFrames, HoldsLatents
from salt_zoo.core.protocols import Backbone
from salt_zoo.planning.memory import GIB, size_of
from salt_zoo.plugin.manager import Zoo


def codec_gib(backbone: Backbone) -> dict[str, float]:
    """GiB of each codec's weights, by its name in `Backbone.codec_modules`."""
    return {
        name: sum(size_of(p) for p in module.parameters()) / GIB
        for name, module in backbone.codec_modules().items()
    }


def resident_codecs(run: Resolved, backbone: Backbone, zoo: Zoo) -> set[str]:
    """The codecs that a training has on every device from its first update on.

    Pixels of a dataset, or their first frames, are encoded in every update, and quality is measured
    on decoded videos: what does that stays on the device. The text encoder leaves it. The dataset
    is not made, because a plan needs no data.
    """
    found: set[str] = set()
    of_data = zoo.datasets[run.config.dataset["name"]].load()
    encoded = isinstance(of_data, type) and issubclass(of_data, EncodedFirstFrames)
    if backbone.image_shape is not None and not encoded:
        found |= set(backbone.codecs_of("image"))
    needs_data = zoo.methods.create(run.config.method["name"], run.method, zoo).needs_data
    encoded |= isinstance(of_data, HoldsLatents) and of_data.holds_latents(run.dataset)
    if run.config.quality.every or (needs_data and not encoded):
        found |= set(backbone.codecs_of("video"))
    return found
