"""`salt-zoo --help` and `salt-zoo list`: quick, complete, and without importing torch."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest

from salt_zoo import __version__

WITHOUT_TORCH = """
import sys
from salt_zoo.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
heavy = {"torch", "diffusers", "transformers", "accelerate", "pandas", "matplotlib", "av"}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["sample", "--help"], ["list"], ["list", "--json"]],
)
def test_quick_and_without_torch(arguments, shell):
    began = seconds_of_children()
    ended = shell("-c", WITHOUT_TORCH, *arguments)
    assert (ended.code, ended.err) == (0, "[]\n")
    assert seconds_of_children() - began < 2


def seconds_of_children() -> float:
    """Of processor time, which other work on the machine hardly lengthens."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_the_tables_show_every_part(zoo, cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    ended = cli("list")
    assert (ended.code, ended.err) == (0, "")
    for registry in zoo.registries:
        for entry in registry:
            assert entry.name in ended.out and entry.plugin in ended.out


def test_json(zoo, cli):
    listed = json.loads(cli("list", "--json").out)
    assert listed["broken"] == []
    for registry in zoo.registries:
        assert [row["name"] for row in listed[registry.plural]] == [e.name for e in registry]
    for rows in listed.values():
        for row in rows:
            assert row["summary"] and len(row["summary"].splitlines()) == 1


def test_a_summary_cannot_style_the_tables(cli, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from salt_zoo import hookimpl\n"
        "@hookimpl\n"
        "def register(zoo): zoo.metrics.add('mine', print, '[red]not red[/red] [link')\n"
    )
    ended = cli("list", "-p", path)
    assert ended.code == 0 and "[red]not red[/red] [link" in ended.out


def test_a_summary_cannot_write_to_the_terminal(cli, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from salt_zoo import hookimpl\n"
        "@hookimpl\n"
        "def register(zoo): zoo.metrics.add('mine', print, 'a\\x1b]0;title\\x07b \\u202e c')\n"
    )
    ended = cli("list", "-p", path)
    assert ended.code == 0 and "mine" in ended.out
    assert not {"\x1b", "\x07", "\u202e"} & set(ended.out)


def test_broken_plugins_are_listed_with_their_reason(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    path = tmp_path / "mine.py"
    path.write_text("1 / 0")
    ended = cli("list", "-p", path)
    assert "broken" in ended.out and "ZeroDivisionError" in ended.out


@pytest.mark.parametrize(("options", "first"), [("--json", "{"), ("", "methods")])
def test_a_closed_pipe_is_no_error(options, first):
    """The reader has seen enough, and says nothing."""
    command = f"set -o pipefail; '{sys.executable}' -m salt_zoo list {options} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, first, "")


def test_version_and_module(shell):
    assert shell("-m", "salt_zoo", "--version").out.strip() == __version__


@pytest.mark.parametrize("arguments", [[], ["distil"], ["train"], ["sample", "a prompt"]])
def test_usage_errors(arguments, cli):
    with pytest.raises(SystemExit) as raised:
        cli(*arguments)
    assert raised.value.code == 2
