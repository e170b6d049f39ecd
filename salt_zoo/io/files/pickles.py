"""torch's files of tensors, read without running code in them, and without torch's talk."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, BinaryIO

import torch


def load_pickle(file: Path | BinaryIO, mmap: bool = False) -> Any:
    """What `torch.save` has written, on the CPU; `mmap`: of its tensors is read what is used.

    Of a damaged or foreign file torch warns (of its pickle protocol, say) before it raises: here
    its error says all.

    Raises:
        Exception: of many kinds; the file is damaged, or would run code.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(file, map_location="cpu", mmap=mmap, weights_only=True)
