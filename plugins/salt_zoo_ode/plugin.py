"""Registers ODE regression, and the dataset and the recipe of its trajectories."""

from salt_zoo import hookimpl


@hookimpl
def register(zoo):
    zoo.methods.add(
        "ode-regression",
        "salt_zoo_ode.method:OdeRegression",
        "regression to the endpoints of a flow model's ODE (CausVid, arXiv 2412.07772; causal "
        "with of: student-start, arXiv 2602.02214)",
    )
    zoo.datasets.add(
        "trajectories",
        "salt_zoo_ode.dataset:Trajectories",
        "stored ODE trajectories with their prompts, made by 'salt-zoo prepare trajectories'",
    )
    zoo.recipes.add(
        "trajectories",
        "salt_zoo_ode.recipe:TrajectoryRecipe",
        "ODE trajectories of a backbone's teacher, or of its student's start, for ode-regression",
    )
