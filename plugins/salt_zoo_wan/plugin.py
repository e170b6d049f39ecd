"""Registers the backbone `wan`, its published sizes and the dataset of prompts."""

from salt_zoo import hookimpl


@hookimpl
def register(zoo):
    zoo.backbones.add(
        "wan",
        "salt_zoo_wan.backbone:WanBackbone",
        "Wan 2.1, bidirectional: all frames at once (arXiv 2503.20314)",
    )
    zoo.sizes.add(
        "wan2.1-t2v-1.3b",
        "salt_zoo_wan.published.published_size:PublishedSize",
        "Wan 2.1 text-to-video, 1.3 B: from the hub, a diffusers folder or one original file",
    )
    zoo.sizes.add(
        "wan2.1-t2v-14b",
        "salt_zoo_wan.published.published_sizes:LargePublishedSize",
        "Wan 2.1 text-to-video, 14 B: likewise",
    )
    zoo.sizes.add(
        "wan2.1-i2v-14b-480p",
        "salt_zoo_wan.published.published_sizes:ImageToVideo480p",
        "Wan 2.1 image-to-video, 14 B at 480x832: likewise, with CLIP for the first frame",
    )
    zoo.sizes.add(
        "wan2.1-i2v-14b-720p",
        "salt_zoo_wan.published.published_sizes:ImageToVideo720p",
        "Wan 2.1 image-to-video, 14 B at 720x1280: likewise",
    )
    zoo.sizes.add(
        "wan2.2-t2v-a14b",
        "salt_zoo_wan.published.expert_sizes:TextExperts22",
        "Wan 2.2 text-to-video, two experts of 14 B, each for its times, or one of them: likewise",
    )
    zoo.sizes.add(
        "wan2.2-i2v-a14b",
        "salt_zoo_wan.published.expert_sizes:ImageExperts22",
        "Wan 2.2 image-to-video, two experts of 14 B, each for its times, or one of them: likewise",
    )
    zoo.sizes.add(
        "wan2.2-ti2v-5b",
        "salt_zoo_wan.published.published_sizes:HighResolutionSize",
        "Wan 2.2 text-to-video, 5 B: 48 latent channels, 24 frames a second; likewise",
    )
    zoo.datasets.add(
        "prepared",
        "salt_zoo_wan.encoders.prepared:Prepared",
        "what 'salt-zoo prepare text' or 'salt-zoo prepare latents' has written",
    )
    zoo.datasets.add(
        "prompts",
        "salt_zoo_wan.encoders.prompts:Prompts",
        "a text file of prompts, one a line (64 come with it), and latents if there are any",
    )
