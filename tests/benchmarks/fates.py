"""Tasks that are the names of ways to end. Their processes import this file, and so little else."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path


def begin(folder: Path):
    """Does tasks that are the names of ways to end."""

    def do(task, tell):
        name, _, how = task.partition(":")
        with (folder / name).open("a") as file:
            file.write(f"{os.getpid()}\n")
        tell(1, 2, "working")
        if how == "dies once" and len((folder / name).read_text().split()) > 1:
            return name
        if how.startswith("dies"):
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "exits":
            os._exit(0)
        if how == "crosses":
            os.kill(os.getpid(), signal.SIGSEGV)
        if how == "forks":
            child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
            child.start()
            return child.pid
        if how == "is stopped":
            if (child := os.fork()) == 0:
                time.sleep(600)
                os._exit(0)
            tell(1, 2, str(child))
            time.sleep(600)
        if how == "collects":
            return gc.isenabled(), gc.get_freeze_count() > 0
        if how == "leaves":
            sys.exit(0)
        if how == "interrupts":
            raise KeyboardInterrupt
        if how == "cannot tell":
            raise Mute
        print("standard output belongs to the command")
        return name

    return do


class Mute(Exception):
    def __init__(self) -> None:
        super().__init__(lambda: None)  # nor can it be pickled

    def __str__(self) -> str:
        raise ValueError


def broken(reason: str):
    raise RuntimeError(reason)
