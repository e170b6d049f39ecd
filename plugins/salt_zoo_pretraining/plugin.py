"""Registers the ways to pretrain a flow model, and to initialise a causal student."""

from salt_zoo import hookimpl


@hookimpl
def register(zoo):
    zoo.methods.add(
        "teacher-forcing",
        "salt_zoo_pretraining.teacher_forcing:TeacherForcing",
        "flow matching on real latents, every block given the clean past (arXiv 2602.02214); "
        "on a bidirectional backbone this is plain flow matching, how a teacher is pretrained",
    )
    zoo.methods.add(
        "diffusion-forcing",
        "salt_zoo_pretraining.diffusion_forcing:DiffusionForcing",
        "flow matching on real latents, every block at a time of its own, given the noisy past "
        "(arXiv 2407.01392); plain flow matching on a bidirectional backbone",
    )
    zoo.methods.add(
        "ode-regression",
        "salt_zoo_pretraining.ode_regression:OdeRegression",
        "regression to the endpoints of a flow model's ODE (CausVid, arXiv 2412.07772; causal "
        "with of: student-start, arXiv 2602.02214)",
    )
    zoo.datasets.add(
        "trajectories",
        "salt_zoo_pretraining.trajectory_data:Trajectories",
        "stored ODE trajectories with their prompts, made by 'salt-zoo pretrain trajectories'",
    )
    zoo.recipes.add(
        "teacher",
        "salt_zoo_pretraining.teacher_recipe:TeacherRecipe",
        "weights of any backbone, from random ones by flow matching on a dataset",
    )
    zoo.recipes.add(
        "trajectories",
        "salt_zoo_pretraining.trajectory_recipe:TrajectoryRecipe",
        "ODE trajectories of a backbone's teacher, or of its student's start, for ode-regression",
    )
