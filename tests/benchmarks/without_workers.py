"""The jobs of a study in the test's own process; those of processes are in test_workers.py."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from benchmarks.runner.workers.processes import Do, Result
from salt_zoo.plugin.isolation.foreign import explain, show_traceback
from salt_zoo.plugin.manager import load_zoo


def run_here(
    tasks: Sequence[Any],
    begin: Callable[[], Do],
    processes: int,
    show: Callable[[int, int, int, str], None],
) -> list[Result]:
    """`run_tasks` without its processes. All else is as in a worker: what goes there and back is
    pickled, and `begin` loads a zoo of its own, whatever zoo a test gives the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("salt_zoo.plugin.manager.load_zoo", load_zoo)
        do = sent(begin)()
    results = []
    for index, task in enumerate(tasks):
        try:
            value = do(sent(task), lambda *progress, index=index: show(index, *sent(progress)))
            results.append(Result(value=sent(value)))
        except Exception as error:
            show_traceback(error)
            results.append(Result(error=explain(error)))
        show(index, 1, 1, "failed" if results[-1].error else "done")
    return results


def sent(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))
