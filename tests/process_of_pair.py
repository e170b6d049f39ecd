"""One of the two processes of `tests/two_processes.py`: runs what it is given until it is told to
end, or until the process that gives it is no more."""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import runpy
import sys
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as distributed


def run(job: dict[str, Any], rank: str) -> int:
    """As `python` would, and with its exit code."""
    streams = [os.dup(number) for number in (1, 2)]
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(Path(job["folder"]) / f"{name}-{rank}", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    try:
        first, *rest = job["words"]
        if first == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = [first, *rest]
            runpy.run_path(first, run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # the other may wait for this one, and is ended
    finally:
        for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
            stream.flush()
            os.dup2(streams[number - 1], number)
            os.close(streams[number - 1])
    return code


def main() -> None:
    faulthandler.enable()  # a crash of a library says where
    rank, own = os.environ["RANK"], dict(os.environ)
    store = distributed.TCPStore(
        "127.0.0.1", int(own["MASTER_PORT"]), is_master=False, timeout=timedelta(days=1)
    )
    number = 0
    while content := store.get(f"job-{number}"):  # fails where the other end is no more
        job = json.loads(content)
        wanted = {**own, **job["changed"]}
        os.environ.update(wanted)
        for name in os.environ.keys() - (wanted.keys() - {*job["removed"]}):
            del os.environ[name]
        # by which salt_zoo.io.distributed tells one run from another at the same store
        os.environ["TORCHELASTIC_RESTART_COUNT"] = str(number)
        code = run(job, rank)
        gc.collect()
        gc.freeze()  # what is left are modules and caches, which the next job need not look at
        store.set(f"done-{number}-{rank}", str(code))
        number += 1
    sys.stdout.flush()
    os._exit(0)  # without taking everything apart, which takes seconds


if __name__ == "__main__":
    main()
