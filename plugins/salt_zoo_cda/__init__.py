"""Cache-distribution-aware training (CDA; Salt, arXiv 2604.03118) and diagnostics of caches.

Public: `salt_zoo_cda.method`, `salt_zoo_cda.alignment`, `salt_zoo_cda.objective`,
`salt_zoo_cda.reference`, `salt_zoo_cda.diagnostics`.
"""
