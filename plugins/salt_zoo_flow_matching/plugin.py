"""Registers the two forms of flow matching on real latents, and the recipe of a teacher."""

from salt_zoo import hookimpl


@hookimpl
def register(zoo):
    zoo.methods.add(
        "teacher-forcing",
        "salt_zoo_flow_matching.method:TeacherForcing",
        "flow matching on real latents, every block given the clean past (arXiv 2602.02214); "
        "on a bidirectional backbone this is plain flow matching, how a teacher is pretrained",
    )
    zoo.methods.add(
        "diffusion-forcing",
        "salt_zoo_flow_matching.method:DiffusionForcing",
        "flow matching on real latents, every block at a time of its own, given the noisy past "
        "(arXiv 2407.01392); plain flow matching on a bidirectional backbone",
    )
    zoo.recipes.add(
        "teacher",
        "salt_zoo_flow_matching.recipe:TeacherRecipe",
        "weights of any backbone, from random ones by flow matching on a dataset",
    )
