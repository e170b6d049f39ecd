"""Initialising a few-step causal student: regression to the endpoints of a flow model's ODE.

Public: `salt_zoo_ode.method`, `salt_zoo_ode.trajectories` (solving the ODE), `salt_zoo_ode.store`
(a folder of trajectories).
"""
