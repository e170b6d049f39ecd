"""Flow matching on real latents: teacher forcing and diffusion forcing.

Public: `salt_zoo_flow_matching.method`.
"""
