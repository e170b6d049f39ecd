"""Methods that train a flow model on real latents, and those that initialise a causal student.

Public: `salt_zoo_pretraining.flow_matching` and its two methods, `ode_regression`, `trajectories`
(to make them) and `trajectory_files` (to keep them).
"""
