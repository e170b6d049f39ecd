"""The README is true: its plugin works when pasted, its commands and files exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import yaml

from benchmarks.run import main
from benchmarks.runner.workers import pool
from tests.benchmarks.test_run import SIZE, SMALL
from tests.benchmarks.without_workers import run_here

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


#: The Python of the page: a stream, and a plugin.
STREAM, PLUGIN = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_stream_of_the_readme_runs_when_pasted(capsys):
    exec(STREAM.replace("blocks=20", "blocks=11"), {})
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 11
    assert all(line.startswith("torch.Size([1, 1, 3, 16, 16])") for line in shown)


def test_the_plugin_of_the_readme_works_when_pasted(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pool, "run_tasks", run_here)
    (tmp_path / "endpoint_regression.py").write_text(PLUGIN, encoding="utf-8")
    (command,) = re.findall(
        r"`(python -m benchmarks\.run quick -p endpoint_regression\.py .*?)`", README
    )
    _, _, module, *arguments = shlex.split(command)
    assert module == "benchmarks.run"
    code = main([*arguments, "--out", "out", *SMALL, *SIZE, "--nfe", "1"])
    assert code == 0, capsys.readouterr().err
    assert "endpoint-regression" in (tmp_path / "out" / "results.json").read_text(encoding="utf-8")


def test_the_plugin_of_the_readme_is_short():
    assert sum(bool(line.strip()) for line in PLUGIN.splitlines()) <= 36


def test_the_run_of_the_readme_resolves():
    from salt_zoo.config.run import resolve
    from salt_zoo.plugin.manager import load_zoo

    (text,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    resolved = resolve(yaml.safe_load(text), load_zoo(), "README.md")
    assert resolved.config.training.updates == 250


def test_files_that_the_readme_links_exist():
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)\)", prose):
        assert (ROOT / target).exists(), target


def test_every_registered_method_is_in_the_table_of_what_works():
    from salt_zoo.plugin.manager import load_zoo

    for entry in load_zoo().methods:
        assert f"| `{entry.name}` |" in README, entry.name
