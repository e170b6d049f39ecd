"""`salt-zoo new method`: a package that registers, is shown, trains and passes its own test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from salt_zoo.cli.new_part import write_package

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def package(tmp_path: Path, cli) -> Path:
    """The package of the method `my-own`."""
    folder = tmp_path / "made"
    ended = cli("new", "method", "my-own", "--out", folder)
    assert (ended.code, ended.out) == (0, f"{folder}\n")
    test, install = ended.err.splitlines()
    assert f"cd {folder} && python -m pytest" in test
    assert f"pip install -e {folder} && salt-zoo show method my-own" in install
    return folder


def test_the_files(package):
    found = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    code = {f"salt_zoo_my_own/{name}.py" for name in ("__init__", "method", "plugin")}
    assert found == {"README.md", "pyproject.toml", "tests/test_method.py", *code}
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))
    points = project["project"]["entry-points"]["salt_zoo"]
    assert points == {"my-own": "salt_zoo_my_own.plugin"}
    assert project["tool"]["setuptools"]["packages"] == ["salt_zoo_my_own"]


def test_the_folder_of_no_option_is_named_after_the_method(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("new", "method", "my-own").out == "salt-zoo-my-own\n"
    assert os.listdir(tmp_path) == ["salt-zoo-my-own"]


def test_the_method_is_listed_and_its_options_are_documented(package, forked):
    environment = {"PYTHONPATH": str(package)}
    plugin = ("-p", "salt_zoo_my_own.plugin")
    ended = forked("-m", "salt_zoo", "list", "--json", *plugin, environment=environment)
    assert (ended.code, ended.err) == (0, "")
    methods = {row["name"]: row for row in json.loads(ended.out)["methods"]}
    assert methods["my-own"]["plugin"] == "salt_zoo_my_own.plugin"
    show = ("show", "method", "my-own", "--json")
    ended = forked("-m", "salt_zoo", *show, *plugin, environment=environment)
    assert (ended.code, ended.err) == (0, "")
    assert all(option["text"] for option in json.loads(ended.out)["options"])


@pytest.mark.slow
def test_its_own_test_passes(package, forked):
    path = package / "tests" / "test_method.py"
    text = path.read_text(encoding="utf-8")
    for used, small in (
        ('"size": "digits"', '"size": "test-tiny"'),
        ('["salt_zoo_my_own.plugin"]', '["salt_zoo_my_own.plugin", "tests.sizes.plugin"]'),
    ):
        assert used in text
        text = text.replace(used, small)
    path.write_text(text, encoding="utf-8")
    done = forked("-m", "pytest", "-q", cwd=package)
    assert done.code == 0 and "2 passed" in done.out, done.out + done.err


@pytest.mark.slow
def test_it_trains_an_autoregressive_student(package, forked, write_run, tmp_path):
    config = write_run(
        method={"name": "my-own", "learning_rate": 1e-4, "teacher_steps": 2},
        backbone={"name": "self-forcing", "size": "test-tiny", "memory": {"name": "window"}},
        training={"updates": 1},
    )
    command = ("-m", "salt_zoo", "train", config, "--out", tmp_path / "run", "--device", "cpu")
    plugins = ("-p", "salt_zoo_my_own.plugin", "-p", "tests.sizes.plugin")
    ended = forked(*command, *plugins, environment={"PYTHONPATH": str(package)})
    assert ended.code == 0, ended.err
    assert (tmp_path / "run" / "student").is_dir()


@pytest.mark.parametrize(
    "arguments", [("check", "--select", "E,F,I,UP,B,SIM"), ("format", "--check")]
)
def test_ruff_finds_nothing(arguments, package):
    command = [sys.executable, "-m", "ruff", *arguments, "--line-length", "100", "--no-cache", "."]
    done = subprocess.run(command, cwd=package, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My Method", "'My Method': write lower-case words joined by hyphens"),
        ("../up", "'../up': write lower-case words joined by hyphens"),
        ("dmd", "method 'dmd' is already registered by 'dmd'; choose another name"),
        ("wan", "its package would be salt_zoo_wan, and there is one of that name already"),
        ("a" * 300, "at most 80 characters"),
    ],
)
def test_names_that_are_refused(name, message, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = cli("new", "method", name)
    assert (ended.code, ended.out) == (2, "") and message in ended.error
    assert os.listdir(tmp_path) == []


def test_other_kinds_are_usage_errors(cli):
    with pytest.raises(SystemExit) as raised:
        cli("new", "metric", "mine")
    assert raised.value.code == 2


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("full", "is a folder that is not empty; name a new one"),
        ("file", "is a file; name a new folder"),
        ("file/below", "is a file, not a folder); choose another path"),
        (".", "is the current folder; name a new one"),
    ],
)
def test_places_that_are_refused(out, message, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("kept")
    ended = cli("new", "method", "mine", "--out", out)
    assert (ended.code, ended.out) == (2, "") and message in ended.error
    assert sorted(os.listdir(tmp_path)) == ["file", "full"]
    assert (tmp_path / "file").read_text() == (tmp_path / "full" / "file").read_text() == "kept"


def test_an_empty_folder_is_taken(cli, tmp_path):
    (tmp_path / "empty").mkdir()
    assert cli("new", "method", "mine", "--out", tmp_path / "empty").code == 0
    assert (tmp_path / "empty" / "pyproject.toml").is_file()


def test_nothing_half_written(tmp_path, monkeypatch):
    def full(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(KeyboardInterrupt):
        write_package("mine", tmp_path / "made")
    assert os.listdir(tmp_path) == []


def test_the_templates_are_packaged():
    setuptools = pytest.importorskip("setuptools")
    packages = setuptools.find_namespace_packages(str(ROOT), include=["salt_zoo*"])
    assert "salt_zoo.cli.templates.method" in packages  # whose *.j2 are package data
