"""Registers the data set, the size, the metrics and the recipes of the digits."""

from salt_zoo import hookimpl


@hookimpl
def register(zoo):
    zoo.datasets.add(
        "digits",
        "salt_zoo_digits.data:Digits",
        "moving handwritten digits: 160 prompts, 9 frames of 16x16 pixels (scikit-learn's scans)",
    )
    zoo.sizes.add(
        "digits",
        "salt_zoo_digits.size:DigitsSize",
        "a Wan of 0.3 M parameters on the digits' pixels, with its pretrained teacher",
    )
    zoo.metrics.add(
        "digits-motion",
        "salt_zoo_digits.metrics:Motion",
        "share of videos whose centroid path fits the commanded motion best",
    )
    zoo.metrics.add(
        "digits-rigidity",
        "salt_zoo_digits.metrics:Rigidity",
        "share of energy that a rigid digit on the commanded path leaves unexplained",
    )
    zoo.recipes.add(
        "digits-teacher",
        "salt_zoo_digits.recipes:TeacherRecipe",
        "the digits' teacher, from random weights (about half an hour on 2 cores)",
    )
