"""Registers the data set, the size, the metrics and the recipes of the digits."""

from salt_zoo import hookimpl

METRICS = {
    "digits-class": (
        "ClassAccuracy",
        "share of videos in which the judge sees the digit asked for",
    ),
    "digits-consistency": ("Consistency", "share of videos whose frames all show the same digit"),
    "digits-motion": (
        "Motion",
        "share of videos whose centroid path fits the commanded motion best",
    ),
    "digits-displacement": ("Displacement", "length of the centroid's path over the commanded one"),
    "digits-centroid": (
        "CentroidError",
        "distance in pixels of the centroids to the commanded path",
    ),
    "digits-rigidity": (
        "Rigidity",
        "share of energy that a rigid digit on the path leaves unexplained",
    ),
    "digits-sharpness": ("Sharpness", "Laplacian energy over real data's; 1 is right"),
    "digits-sharpness-error": ("SharpnessError", "distance of the mean sharpness from real data's"),
    "digits-flicker": ("Flicker", "change of total brightness between frames, over the total"),
    "digits-diversity": ("Diversity", "distance between videos of one prompt over real data's"),
    "digits-fd": ("FrechetAppearance", "Frechet distance of the judge's features to real data"),
    "digits-fd-motion": ("FrechetMotion", "Frechet distance of centroid steps to real data"),
}


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
    for name, (target, summary) in METRICS.items():
        zoo.metrics.add(name, f"salt_zoo_digits.metrics:{target}", summary)
    zoo.recipes.add(
        "digits-teacher",
        "salt_zoo_digits.recipes:TeacherRecipe",
        "the digits' teacher, from random weights (about 20 minutes on 2 cores)",
    )
    zoo.recipes.add(
        "digits-causal",
        "salt_zoo_digits.recipes:CausalRecipe",
        "the digits' causal student before distillation, from the teacher (about 25 minutes)",
    )
    zoo.recipes.add(
        "digits-judge",
        "salt_zoo_digits.recipes:JudgeRecipe",
        "the classifier that judges digit videos (about a minute)",
    )
