"""What identifies the code of a part."""

from __future__ import annotations

from pathlib import Path

import pytest

from salt_zoo.config.identity import differences, identity
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.plugin.versions import Versions

PLUGIN = """
from salt_zoo import hookimpl
from salt_zoo_dmd.method import DMD
class Declared(DMD):
    version = 3
class Inherits(Declared):
    pass
class Silent(DMD):
    pass
def function(config, zoo):
    return DMD(config, zoo)
@hookimpl
def register(zoo):
    for name, target in (("declared", Declared), ("inherits", Inherits), ("silent", Silent),
                         ("function", function)):
        zoo.methods.add(name, target, "a method")
"""


def versions_of(path: Path, source: str) -> dict[str, list[str]]:
    path.write_text(source)
    zoo = load_zoo([str(path)])
    assert not zoo.broken
    names = ("declared", "inherits", "silent", "function")
    return {name: Versions(zoo).of(zoo.methods[name]) for name in names}


def test_every_part_of_ours_declares_its_version(zoo):
    for registry in zoo.registries:
        for entry in registry:
            if entry.kind != "recipe" and entry.load().__module__.startswith("salt_zoo_"):
                assert not any("files" in text for text in Versions(zoo).of(entry)), entry


def test_a_declared_version_or_the_files(tmp_path: Path):
    before = versions_of(tmp_path / "plugin.py", PLUGIN)
    edited = versions_of(tmp_path / "plugin.py", PLUGIN + "# an edit")
    raised = versions_of(tmp_path / "plugin.py", PLUGIN.replace("version = 3", "version = 4"))
    base = "salt_zoo_dmd.method.DMD 1"
    assert all(base in before[name] for name in ("declared", "inherits", "silent"))
    # a version is inherited inside of a package, and not from another one
    assert {name for name in before if before[name] != edited[name]} == {"silent", "function"}
    assert before["inherits"] != raised["inherits"] and before["declared"] != raised["declared"]


def test_a_package_is_all_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "losses.py").write_text("SCALE = 1")
    (package / "plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    zoo = load_zoo(["own_package.plugin"])
    before = Versions(zoo).of(zoo.methods["silent"])
    (package / "losses.py").write_text("SCALE = 2")
    assert Versions(zoo).of(zoo.methods["silent"]) != before


def test_parts_of_parts_are_seen(zoo):
    def make():
        options = zoo.backbones.configure("self-forcing", {"memory": "window"}, "test")
        return zoo.backbones.create("self-forcing", options, zoo)

    _, parts = Versions(zoo).used_by(make)
    assert set(parts) == {"backbone self-forcing", "memory window", "size digits"}


def test_identity_is_what_can_change_the_weights():
    training = {"updates": 4, "log_every": 1, "precision": "auto"}
    watched = {"quality": {"every": 2}, "execution": {"micro_batch": 8}}
    content = {"seed": 1, "training": training, **watched}
    expected = {"seed": 1, "training": {"updates": 4, "precision": "fp32"}}
    assert identity(content, "fp32") == expected
    assert not list(differences({"a": {"b": 1}}, {"a": {"b": 1}}))
    (one,) = differences({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}})
    assert str(one) == "a.c: nothing there, 2 here"
