"""Consistency distillation for flow models.

Public: `salt_zoo_consistency.method`, `salt_zoo_consistency.losses`.
"""
