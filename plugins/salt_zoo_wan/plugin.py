"""Registers the backbone `wan`."""

from salt_zoo import hookimpl


@hookimpl
def register(zoo):
    zoo.backbones.add(
        "wan",
        "salt_zoo_wan.backbone:WanBackbone",
        "Wan 2.1, bidirectional: all frames at once (arXiv 2503.20314)",
    )
