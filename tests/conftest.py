"""Fixtures that every test may use: a zoo, a tiny teacher, small runs, the command line."""

from __future__ import annotations

import os

# Before torch is imported: the networks are so small that a second thread costs more than it
# brings, and a test's subprocesses must compute with as many threads as the test itself.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the internet

import copy
import functools
import gc
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml

from salt_zoo.cli import main
from salt_zoo.plugin.manager import Zoo, load_zoo
from salt_zoo.plugin.registration.registry import merge
from tests.forked import Forked
from tests.two_processes import PAIR

# a busy machine must not fail a test: only results count, and they are the same every time
hypothesis.settings.register_profile("zoo", deadline=None, derandomize=True)
hypothesis.settings.load_profile("zoo")

PROMPT = "a 7 moving up-left slowly"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First what shares a pair of processes and much work in them, or the process that others are
    forks of. Workers of pytest-xdist steal from each other's ends (`--dist worksteal`), so one of
    them does all of it."""
    pairs = ("training", "preparation")

    def shares(item: pytest.Item) -> bool:
        return item.path.parent.name in pairs or "forked" in item.fixturenames

    items.sort(key=lambda item: not shares(item))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules live as long as the session: no collection of garbage need look at them, neither
    while they are imported nor later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches are not the user's: here, and in the processes that a test starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def usual_signals() -> None:
    """What is started in the background, or by nohup, inherits that some signals are ignored."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    for number, handler in usual.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def pair_of_processes() -> Iterator[None]:
    """Where a test has started one, it ends with the session."""
    yield
    PAIR.end()


@pytest.fixture(scope="session")
def zoo_with() -> Callable[..., Zoo]:
    """The zoo of all installed plugins and of modules of tests, loaded once."""
    return functools.cache(lambda *modules: load_zoo(modules))


@pytest.fixture(scope="session")
def zoo(zoo_with: Callable[..., Zoo]) -> Zoo:
    """The zoo of all installed plugins; tests that add to it load their own."""
    return zoo_with()


@pytest.fixture
def one_zoo(zoo_with: Callable[..., Zoo], monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in this process are given a zoo of before, which knows already what passes cost,
    unless they name plugins of other places than `tests`."""

    def load(extra: Sequence[str] = ()) -> Zoo:
        ours = all(name.startswith("tests.") for name in extra)
        return zoo_with(*extra) if ours else load_zoo(extra)

    monkeypatch.setattr("salt_zoo.cli.load_zoo", load)


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with a random network of the size `digits`, in place of its teacher."""
    import torch
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    from salt_zoo_digits.size import TRANSFORMER

    folder = tmp_path_factory.mktemp("weights") / "teacher"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        WanTransformer3DModel(**TRANSFORMER).save_pretrained(folder)
    return folder


@pytest.fixture
def run_content(teacher: Path) -> Callable[..., dict[str, Any]]:
    """Makes the configuration of a run of a few updates; `changes` are merged into it."""

    def make(**changes: Any) -> dict[str, Any]:
        content = {
            "method": {"name": "teacher-forcing", "learning_rate": 1.0e-3},
            "backbone": {"name": "wan", "size": "digits", "options": {"weights": str(teacher)}},
            "dataset": "digits",
            "training": {
                "updates": 4,
                "batch_size": 2,
                "checkpoint_every": 2,
                "log_every": 1,
                "ema": {"decay": 0.9, "start": 1},
                "trackers": [],
            },
        }
        return merge(copy.deepcopy(content), changes)

    return make


@pytest.fixture
def write_run(tmp_path: Path, run_content: Callable[..., dict[str, Any]]) -> Callable[..., Path]:
    """Writes such a configuration to a YAML file."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(run_content(**changes)))
        return path

    return write


@pytest.fixture
def train(zoo: Zoo, run_content: Callable[..., dict[str, Any]]) -> Callable[..., Any]:
    """Trains in this process and returns the trainer."""

    def run(folder: Path, zoo: Zoo = zoo, progress: Any = None, **changes: Any) -> Any:
        from salt_zoo.config.run import resolve
        from salt_zoo.training.launch import train as train_run

        resolved = resolve(run_content(**changes), zoo, "test")
        return train_run(resolved, folder, zoo, "cpu", progress)

    return run


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """Its one line on stderr, beside notes of what is going on."""
        lines = [line for line in self.err.splitlines() if not line.startswith("note: ")]
        assert len(lines) == 1, self.err
        return lines[0]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs `salt-zoo` in this process."""

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


@pytest.fixture
def shell() -> Callable[..., Ended]:
    """Runs `python` in a process of its own; `environment` is added to this one's."""

    def run(*arguments: object, environment: dict[str, str] | None = None) -> Ended:
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, **(environment or {})},
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def forked() -> Callable[..., Ended]:
    """The same in a process that has imported already what trainings and studies use."""

    def run(
        *arguments: object, environment: dict[str, str] | None = None, cwd: Path | None = None
    ) -> Ended:
        process = Forked(*arguments, environment=environment, cwd=cwd)
        out, err = process.communicate()
        assert process.returncode is not None
        return Ended(process.returncode, out, err)

    return run


@pytest.fixture
def matrix_layers() -> Iterator[set[tuple[Any, Any]]]:
    """The dtypes (of the weights, of the result) of every linear layer that runs in the test."""
    import torch
    from torch.nn.modules.module import register_module_forward_hook

    seen: set[tuple[Any, Any]] = set()

    def look(module: Any, inputs: Any, output: Any) -> None:
        if isinstance(module, torch.nn.Linear):
            seen.add((module.weight.dtype, output.dtype))

    hook = register_module_forward_hook(look)
    yield seen
    hook.remove()
