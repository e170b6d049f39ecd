"""Plugins: found in every way, and broken in every way without harm to the others."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from salt_zoo import hookimpl
from salt_zoo.plugin.isolation.surroundings import exits_raised
from salt_zoo.plugin.manager import Zoo, load_zoo

PEPPER = Path(__file__).parent / "third_party" / "salt_zoo_pepper"

GOOD = """
from salt_zoo import hookimpl

class Null:
    needs_data = False
    def __init__(self, config, zoo):
        pass

@hookimpl
def register(zoo):
    zoo.methods.add("null", Null, "does nothing")
"""

REGISTER = """
from salt_zoo import hookimpl

@hookimpl
def register(zoo):
    zoo.metrics.add("before", len, "registered before it breaks")
"""

#: How a plugin file can be broken, and a part of the reason that is given.
BREAKAGES = {
    "import error": ("import a_module_that_does_not_exist", "a_module_that_does_not_exist"),
    "syntax error": ("def register(zoo:\n", "SyntaxError"),
    "raises at import": ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
    "exits at import": ("import sys; sys.exit('bye')", "SystemExit: bye"),
    "ends the process at import": ("import os; os._exit(0)", "SystemExit: os._exit(0)"),
    "cancelled at import": ("import asyncio; raise asyncio.CancelledError", "CancelledError"),
    "another BaseException": (
        "class Odd(BaseException): pass\nraise Odd('odd')",
        "Odd: odd",
    ),
    "unknown argument": (
        "from salt_zoo import hookimpl\n@hookimpl\ndef register(zoo, planet): pass",
        "planet",
    ),
    "unknown argument of another hook": (
        REGISTER + "@hookimpl\ndef step_finished(step, loss): pass",
        "loss",
    ),
    "misspelt hook": (
        REGISTER + "@hookimpl\ndef step_finnished(step): pass",
        "did you mean 'step_finished'",
    ),
    "no hookimpl": ("def register(zoo): pass", "no function marked with salt_zoo.hookimpl"),
    "empty": ("", "no function marked with salt_zoo.hookimpl"),
    "raises in register": (REGISTER + "    raise KeyError('no key')", "KeyError: 'no key'"),
    "exits in register": (REGISTER + "    raise SystemExit(3)", "SystemExit: 3"),
    "duplicate name": (
        REGISTER + "    zoo.methods.add('teacher-forcing', print, 'mine')",
        "method 'teacher-forcing' is already registered by 'flow-matching'",
    ),
    "duplicate of its own": (
        REGISTER + "    zoo.metrics.add('before', print, 'again')",
        "metric 'before' is already registered",
    ),
    "bad name": (REGISTER + "    zoo.methods.add('My Method', print, 'mine')", "'My Method'"),
    "name that is no text": (REGISTER + "    zoo.methods.add(7, print, 'mine')", "name 7"),
    "missing summary": (REGISTER + "    zoo.methods.add('mine', print, ' ')", "summary"),
    "no summary at all": (REGISTER + "    zoo.methods.add('mine', print)", "summary"),
    "target cannot be called": (
        REGISTER + "    zoo.methods.add('mine', 3, 'mine')",
        "cannot be called",
    ),
    "malformed target": (
        REGISTER + "    zoo.methods.add('mine', 'module.Class', 'mine')",
        "'module:attribute'",
    ),
    "target without attribute": (
        REGISTER + "    zoo.methods.add('mine', 'module:', 'mine')",
        "'module:attribute'",
    ),
    "unknown registry": (REGISTER + "    zoo.mehtods.add('mine', print, 'mine')", "mehtods"),
}


def plugin_file(folder: Path, source: str, name: str = "mine.py") -> str:
    path = folder / name
    path.write_text(textwrap.dedent(source))
    return str(path)


def names(zoo: Zoo) -> dict[str, list[str]]:
    return {registry.plural: [entry.name for entry in registry] for registry in zoo.registries}


@pytest.mark.parametrize("how", BREAKAGES)
def test_a_broken_plugin_costs_one_line_and_nothing_else(how, tmp_path, zoo, cli):
    source, reason = BREAKAGES[how]
    path = plugin_file(tmp_path, source)
    good = plugin_file(tmp_path, GOOD, "good.py")
    ended = cli("list", "--json", "-p", path, "-p", good)
    assert ended.code == 0
    assert ended.error.startswith(f"warning: plugin {path!r} is not used: ")
    assert reason in ended.error
    listed = json.loads(ended.out)
    (broken,) = listed.pop("broken")
    assert broken["plugin"] == path
    expected = names(zoo)
    expected["methods"] = sorted([*expected["methods"], "null"])
    assert {kind: [row["name"] for row in rows] for kind, rows in listed.items()} == expected


def test_a_process_that_foreign_code_forks_may_end():
    import os

    with exits_raised():
        child = os.fork()
        if not child:
            os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        with pytest.raises(SystemExit, match=r"os._exit\(5\)"):
            os._exit(5)


def test_the_hooks_of_a_broken_plugin_are_not_called(tmp_path):
    source = REGISTER + "    raise ValueError\n\n@hookimpl\ndef step_finished(step):\n    1 / 0"
    zoo = load_zoo([plugin_file(tmp_path, source)])
    assert len(zoo.broken) == 1
    assert zoo.hook.step_finished(step=1, logs={}) == []


def test_an_interrupt_is_not_a_broken_plugin(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        load_zoo([plugin_file(tmp_path, "raise KeyboardInterrupt")])


def test_in_a_command_a_plugin_that_interrupts_is_broken(tmp_path, cli):
    ended = cli("list", "--json", "-p", plugin_file(tmp_path, "raise KeyboardInterrupt"))
    assert ended.code == 0
    (broken,) = json.loads(ended.out)["broken"]
    assert broken["reason"].startswith("KeyboardInterrupt")


def test_a_file_is_a_plugin(tmp_path):
    path = plugin_file(tmp_path, GOOD)
    zoo = load_zoo([path])
    assert not zoo.broken
    assert zoo.methods["null"].plugin == path


def test_files_of_one_name_are_two_plugins(tmp_path):
    for folder, name in (("a", "null"), ("b", "other")):
        (tmp_path / folder).mkdir()
        plugin_file(tmp_path / folder, GOOD.replace('"null"', f'"{name}"'))
    zoo = load_zoo([str(tmp_path / "a" / "mine.py"), str(tmp_path / "b" / "mine.py")])
    assert not zoo.broken
    assert "null" in zoo.methods and "other" in zoo.methods


def test_a_plugin_named_twice_is_one(tmp_path):
    path = plugin_file(tmp_path, GOOD)
    assert not load_zoo([path, path, "salt_zoo_wan.plugin"]).broken


def test_a_module_is_a_plugin(tmp_path, monkeypatch):
    plugin_file(tmp_path, GOOD, "a_null_module.py")
    monkeypatch.syspath_prepend(tmp_path)
    zoo = load_zoo(["a_null_module"])
    assert zoo.methods["null"].plugin == "a_null_module"


def test_a_module_in_a_broken_package_is_listed(tmp_path, monkeypatch):
    package = tmp_path / "a_broken_package"
    package.mkdir()
    plugin_file(package, "raise SystemExit(1)", "__init__.py")
    plugin_file(package, GOOD, "plugin.py")
    monkeypatch.syspath_prepend(tmp_path)
    (broken,) = load_zoo(["a_broken_package.plugin"]).broken
    assert "SystemExit" in broken.reason


def test_a_package_that_lacks_a_module_is_listed_not_missing(tmp_path, monkeypatch):
    package = tmp_path / "a_needy_package"
    package.mkdir()
    plugin_file(package, "import a_module_that_does_not_exist", "__init__.py")
    plugin_file(package, GOOD, "plugin.py")
    monkeypatch.syspath_prepend(tmp_path)
    (broken,) = load_zoo(["a_needy_package.plugin"]).broken
    assert "a_module_that_does_not_exist" in broken.reason


@pytest.mark.parametrize("name", ["nowhere.py", "no_such_module", "no_such.module", "salt_zoo.no"])
def test_a_plugin_that_does_not_exist_is_an_error(name, cli):
    ended = cli("list", "-p", name)
    assert ended.code == 2
    assert ended.error.startswith(f"error: -p {name}: ")


def test_an_object_is_a_plugin():
    class Plugin:
        @hookimpl
        def register(self, zoo):
            zoo.metrics.add("mine", "nowhere:Mine", "of an object")

    zoo = Zoo()
    zoo.add_plugin("object", Plugin)
    assert zoo.metrics["mine"].plugin == "object"


# --- packages with entry points ---


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The example package, installed by pip into a folder of its own."""
    present = {distribution.name for distribution in importlib.metadata.distributions()}
    if not {"pip", "setuptools"} <= present:  # finding the module pip changes how others are found
        pytest.skip("needs pip and setuptools in this environment")
    folder = tmp_path_factory.mktemp("third_party")
    source = shutil.copytree(PEPPER, folder / "source")  # setuptools writes beside the source
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target")
    command = [sys.executable, "-m", "pip", "install", *options, folder / "site", source]
    subprocess.run(command, check=True)
    return folder / "site"


def test_an_installed_package_is_listed(installed, shell):
    ended = shell("-m", "salt_zoo", "list", "--json", environment={"PYTHONPATH": str(installed)})
    assert (ended.code, ended.err) == (0, "")
    listed = json.loads(ended.out)
    methods = {row["name"]: row["plugin"] for row in listed["methods"]}
    assert methods["pepper-regression"] == "pepper"
    assert methods["teacher-forcing"] == "flow-matching"
    assert "pepper-brightness" in {row["name"] for row in listed["metrics"]}


def test_an_installed_package_trains_measures_and_hooks(installed, monkeypatch, train, tmp_path):
    monkeypatch.syspath_prepend(installed)
    zoo = load_zoo()
    assert "pepper" in zoo.plugins and not zoo.broken
    trainer = train(
        tmp_path / "run",
        zoo,
        method={"name": "pepper-regression"},
        quality={"every": 2, "prompts": 2, "steps": [1], "metrics": ["pepper-brightness"]},
        training={"updates": 2},
    )
    assert "quality/pepper-brightness@1" in trainer.history[-1]
    note = tmp_path / "run" / "checkpoints" / "step-000002" / "pepper.txt"
    assert note.read_text() == "seasoned at update 2\n"


def distribution(folder: Path, name: str, entry_points: str) -> None:
    """An installed distribution, as far as importlib.metadata is concerned."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)


@pytest.mark.parametrize(
    ("entry_points", "reason"),
    [
        ("[salt_zoo]\nbad = a_module_that_does_not_exist\n", "a_module_that_does_not_exist"),
        ("[salt_zoo]\nbad = json:no_such_attribute\n", "no_such_attribute"),
        ("[salt_zoo]\nbad = not a module!\n", "no reason given"),
        ("[salt_zoo]\nbad = json\n", "no function marked with salt_zoo.hookimpl"),
        ("[salt_zoo]\na line that is no entry point\n", "its entry points cannot be read"),
    ],
)
def test_a_broken_entry_point_costs_one_line(entry_points, reason, tmp_path, monkeypatch, zoo, cli):
    distribution(tmp_path, "bad", entry_points)
    monkeypatch.syspath_prepend(tmp_path)
    ended = cli("list")
    assert ended.code == 0
    assert ended.error.startswith("warning: plugin 'bad' is not used: ")
    if reason != "no reason given":
        assert reason in ended.error
    assert names(load_zoo()) == names(zoo)


def test_entry_points_of_one_name_are_told_apart(tmp_path, monkeypatch):
    plugin_file(tmp_path, GOOD, "first_null.py")
    plugin_file(tmp_path, GOOD, "second_null.py")
    distribution(tmp_path, "first", "[salt_zoo]\nnull = first_null\n")
    distribution(tmp_path, "second", "[salt_zoo]\nnull = second_null\n")
    monkeypatch.syspath_prepend(tmp_path)
    zoo = load_zoo()
    (broken,) = zoo.broken
    assert broken.plugin == "null (2)"
    assert "method 'null' is already registered by 'null'" in broken.reason


def test_nobody_takes_the_name_of_a_built_in_part(tmp_path, monkeypatch):
    source = GOOD.replace('"null"', '"teacher-forcing"')
    plugin_file(tmp_path, source, "usurper.py")
    distribution(tmp_path, "aaa", "[salt_zoo]\naaa = usurper\n")
    monkeypatch.syspath_prepend(tmp_path)
    zoo = load_zoo()
    assert zoo.methods["teacher-forcing"].plugin == "flow-matching"
    assert [broken.plugin for broken in zoo.broken] == ["aaa"]


def test_what_was_asked_for_by_name_must_work(tmp_path, cli):
    for source in ("1 / 0", REGISTER + "    zoo.methods.add('dmd', print, 'mine')"):
        path = plugin_file(tmp_path, source)
        ended = cli("train", "nothing.yaml", "--out", str(tmp_path / "out"), "-p", path)
        assert ended.code == 2
        assert ended.error.startswith(f"error: -p {path}: the plugin cannot be used: ")
        assert not (tmp_path / "out").exists()
