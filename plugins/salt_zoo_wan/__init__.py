"""Wan 2.1 and 2.2 (arXiv 2503.20314), bidirectional, through diffusers.

Public: `salt_zoo_wan.backbone`, `salt_zoo_wan.transformer.network`, `salt_zoo_wan.sizes`.
"""
