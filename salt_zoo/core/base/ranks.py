"""Which process of a distributed run this is; asked of torchrun's variables, before torch is."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress


def is_main_process() -> bool:
    """Whether this is the first (or only) process of the run."""
    return os.environ.get("RANK", "0") == "0"


def is_first_of_machine() -> bool:
    """Whether this is the first (or only) process of the run on this machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def is_alone() -> bool:
    """Whether this is the only process of the run."""
    return world_size() == 1


def world_size() -> int:
    """How many processes the run has; 1 for what is no number, which `check_launch` refuses."""
    text = os.environ.get("WORLD_SIZE", "1")
    return int(text) if text.isascii() and text.isdecimal() else 1


def end_process(code: int) -> int:
    """What a program returns as its exit code, once the command is done; ends the process itself
    where a plugin's thread would keep it alive.

    Standard output is complete: what plugins print as the interpreter ends goes to standard error.
    One of several processes is not taken apart as it exits: threads of its process group may still
    drop what they hold, and now and then one that had done all of its work ended with SIGABRT.
    """
    with suppress(Exception):
        sys.stdout.flush()
    with suppress(OSError):
        os.dup2(2, 1)
    ours = (threading.main_thread(), threading.current_thread())
    if any(not one.daemon and one not in ours for one in threading.enumerate()):
        _end(code)
    if not is_alone():
        atexit.register(_end, code)
    return code


def _end(code: int) -> None:
    atexit.unregister(_end)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)
