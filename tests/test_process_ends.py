"""How a process ends that has done its work."""

from __future__ import annotations

import pytest

PROGRAM = """
import atexit, sys
from salt_zoo.core.base.ranks import end_process

class Kept:
    def __del__(self):
        print("taken apart")

kept = Kept()
atexit.register(print, "first")
atexit.register(print, "second")
sys.exit(end_process(3))
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_one_of_several_is_not_taken_apart(processes, shell):
    """Threads of a process group would still drop what they hold meanwhile."""
    ended = shell("-c", PROGRAM, environment={"WORLD_SIZE": str(processes), "RANK": "0"})
    said = ["second", "first"] if processes == 2 else ["second", "first", "taken apart"]
    assert (ended.code, ended.out, ended.err.split("\n")[:-1]) == (3, "", said)
