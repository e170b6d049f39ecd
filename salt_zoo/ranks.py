"""Which process of a distributed run this is; asked of torchrun's variables, before torch is."""

from __future__ import annotations

import os


def is_main_process() -> bool:
    """Whether this is the first (or only) process of the run."""
    return os.environ.get("RANK", "0") == "0"


def is_first_of_machine() -> bool:
    """Whether this is the first (or only) process of the run on this machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def is_alone() -> bool:
    """Whether this is the only process of the run."""
    return os.environ.get("WORLD_SIZE", "1") == "1"
