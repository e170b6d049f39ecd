"""Autoregressive Wan with a KV cache (Self Forcing, arXiv 2506.08009) and its memories.

Public: `salt_zoo_self_forcing.backbone`, `salt_zoo_self_forcing.transformer.network`,
`salt_zoo_self_forcing.cache`, `salt_zoo_self_forcing.masks`, `salt_zoo_self_forcing.memories`.
"""
