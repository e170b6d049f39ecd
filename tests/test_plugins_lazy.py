"""Parts of plugins that fail only when they are used: one line that names the plugin."""

from __future__ import annotations

import sys

import pytest

from salt_zoo.core.base.errors import ZooError
from salt_zoo.plugin.manager import load_zoo
from tests.test_plugins import GOOD, plugin_file

LAZY = """
from salt_zoo import hookimpl

@hookimpl
def register(zoo):
    zoo.methods.add("lazy", "{target}", "imported when used")
"""


@pytest.mark.parametrize(
    ("target", "source", "reason"),
    [
        ("a_lazy_module:Lazy", "import a_module_that_does_not_exist", "ModuleNotFoundError"),
        ("a_lazy_module:Lazy", "class Lazy", "SyntaxError"),
        ("a_lazy_module:Lazy", "raise SystemExit", "SystemExit"),
        ("a_lazy_module:Lazy", "", "AttributeError"),
        ("a_lazy_module:Lazy", "Lazy = 3", "cannot be called"),
        ("a_lazy_module:Lazy", "class Lazy:\n    Config = 3", "not a pydantic model"),
        ("a_missing_module:Lazy", "", "a_missing_module"),
    ],
)
def test_a_part_that_cannot_be_imported(
    target, source, reason, tmp_path, monkeypatch, write_run, cli
):
    plugin_file(tmp_path, source, "a_lazy_module.py")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "a_lazy_module", raising=False)
    path = plugin_file(tmp_path, LAZY.format(target=target))
    run = write_run(method={"name": "lazy", "learning_rate": None})
    ended = cli("train", run, "--out", tmp_path / "out", "-p", path)
    assert ended.code == 2
    assert path in ended.error and "'lazy'" in ended.error and reason in ended.error
    assert not (tmp_path / "out").exists()


def test_a_part_that_cannot_be_made(tmp_path):
    source = GOOD.replace("        pass", "        raise OverflowError('too much')", 1)
    zoo = load_zoo([plugin_file(tmp_path, source)])
    config = zoo.methods.configure("null", {}, "test")
    with pytest.raises(ZooError, match=r"method 'null' of plugin '.*mine\.py': .*too much"):
        zoo.methods.create("null", config, zoo)
