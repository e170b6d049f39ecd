"""Tests; `tests.parity` is also a command."""
