"""Registers the metrics that suit any dataset."""

from salt_zoo import hookimpl


@hookimpl
def register(zoo):
    zoo.metrics.add(
        "temporal-flickering",
        "salt_zoo_metrics.change:TemporalFlickering",
        "VBench's: 1 minus the mean change between adjacent frames; a still video has 1",
    )
    zoo.metrics.add(
        "motion-magnitude",
        "salt_zoo_metrics.change:MotionMagnitude",
        "mean absolute difference of adjacent frames; a still video has 0",
    )
    zoo.metrics.add(
        "saturation",
        "salt_zoo_metrics.saturation:Saturation",
        "share of pixel values that are nearly or wholly black or blown out",
    )
    image_quality = "salt_zoo_metrics.image_quality:ImageQuality"
    zoo.metrics.add(
        "image-quality",
        image_quality,
        "VBench's imaging quality: MUSIQ (spaq) of the frames [extra: metrics]",
    )
    zoo.metrics.add(
        "image-quality-piqe",
        image_quality,
        "PIQE of the frames, which needs no weights [extra: metrics]",
        model="piqe",
    )
    zoo.metrics.add(
        "clip-score",
        "salt_zoo_metrics.clip_score:ClipScore",
        "CLIP's cosine of prompt and frames [extra: metrics]",
    )
