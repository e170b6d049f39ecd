"""Parity with reference values: `python -m tests.parity [DIR]`.

`DIR` holds golden cases (`NAME.safetensors` beside `NAME.json`); by default the committed subset in
`tests/goldens`. Every quantity is computed by the library's own public functions, and only layouts
and the published codes' look-up grid are translated here.
"""
