"""Methods that train a flow model on real latents, from which distillation starts.

Public: `salt_zoo_pretraining.teacher_forcing`.
"""
