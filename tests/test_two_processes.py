"""The pair of processes that a session of tests shares: jobs are apart, failures are failures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.two_processes import Pair

#: What a job can see of others, one line a process; the collective needs both.
LOOKS = """
import os, sys, torch, torch.distributed as distributed
if not distributed.is_initialized():
    distributed.init_process_group("gloo")
total = torch.tensor(1.0 + distributed.get_rank())
distributed.all_reduce(total)
ours = os.environ.get("OURS")
left = os.environ.get("LEFT")
os.environ["LEFT"] = "by a job"
sys.stdout.write(f"{os.getpid()} {sys.argv[1:]} {total.item()} {ours} {left}\\n")
"""
#: One process fails, and the other would wait for ever.
FAILS = """
import os, time
if os.environ["RANK"] == "1":
    raise ValueError("of the second process")
time.sleep(10_000)
"""


@pytest.mark.slow
def test_jobs_share_processes_and_a_failure_ends_them(tmp_path: Path):
    looks, fails, waits = (tmp_path / name for name in ("looks.py", "fails.py", "waits.py"))
    looks.write_text(LOOKS)
    fails.write_text(FAILS)
    waits.write_text("import time; time.sleep(10_000)")
    pair = Pair()
    try:
        first = pair.run([str(looks), "one"], OURS="1")
        second = pair.run([str(looks), "two"])
        assert first.code == second.code == 0, first.err + second.err
        lines = [said.out.splitlines() for said in (first, second)]
        pids = [[line.split()[0] for line in found] for found in lines]
        assert pids[0] == pids[1] and len({*pids[0], str(os.getpid())}) == 3
        for found, word, ours in zip(lines, ("one", "two"), ("1", "None"), strict=True):
            assert all(f" ['{word}'] 3.0 {ours} None" in line for line in found)

        failed = pair.run([str(fails)])
        assert failed.code != 0 and "ValueError: of the second process" in failed.err
        slow = pair.run([str(waits)], timeout=0.1)  # by a new pair
        assert slow.code != 0 and "takes more than 0.1 s" in slow.err
        assert not pair.processes
    finally:
        pair.end()
