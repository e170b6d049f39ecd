"""Distribution matching distillation (DMD) and its semigroup-regularised form (SC-DMD).

Public: `salt_zoo_dmd.method`, `salt_zoo_dmd.losses`, `salt_zoo_dmd.semigroup`,
`salt_zoo_dmd.objectives`, `salt_zoo_dmd.defect`.
"""
