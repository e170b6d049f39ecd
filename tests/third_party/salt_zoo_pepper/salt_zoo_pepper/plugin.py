"""What Pepper brings to Salt Zoo. Nothing heavy is imported before it is used."""

from pathlib import Path

from salt_zoo import hookimpl


@hookimpl
def register(zoo):
    zoo.methods.add(
        "pepper-regression",
        "salt_zoo_pepper.regression:Regression",
        "the student's velocity is fitted to the guided teacher's",
    )
    zoo.metrics.add(
        "pepper-brightness",
        "salt_zoo_pepper.brightness:Brightness",
        "mean brightness of the video",
    )


@hookimpl
def checkpoint_saved(folder, step):
    Path(folder, "pepper.txt").write_text(f"seasoned at update {step}\n")
