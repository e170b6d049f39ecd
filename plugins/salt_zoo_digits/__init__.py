"""The embedded default: a tiny Wan on videos of real handwritten digits.

Public: `salt_zoo_digits.data`, `salt_zoo_digits.measures`, `salt_zoo_digits.size`,
`salt_zoo_digits.judge`.
"""
