"""A plugin of several files: helpers beside it are imported, and are part of its version."""

from __future__ import annotations

from salt_zoo.plugin.manager import load_zoo
from tests.test_plugins import GOOD, plugin_file


def test_files_beside_a_plugin_can_be_imported(tmp_path):
    source = GOOD.replace('"does nothing"', "helper.TEXT + ', ' + again.TEXT")
    for place in ("first", "second"):
        (tmp_path / place).mkdir()
        plugin_file(tmp_path / place, f"TEXT = '{place}'", "helper.py")
        body = f"import helper\nfrom . import helper as again\n{source}"
        plugin_file(tmp_path / place, body.replace('"null"', f'"{place}"'))
    zoo = load_zoo([str(tmp_path / place / "mine.py") for place in ("first", "second")])
    assert not zoo.broken
    for place in ("first", "second"):  # though both are called helper
        assert zoo.methods[place].summary == f"{place}, {place}"


def test_an_edited_helper_is_another_version(tmp_path):
    from salt_zoo.plugin.versions import Versions

    plugin_file(tmp_path, "TEXT = 'one'", "helper_of_null.py")
    plugin_file(tmp_path, "never imported", "other.py")
    path = plugin_file(tmp_path, f"import helper_of_null\n{GOOD}")
    zoo = load_zoo([path])
    before = Versions(zoo).of(zoo.methods["null"])
    plugin_file(tmp_path, "nor is this", "other.py")
    assert Versions(zoo).of(zoo.methods["null"]) == before
    plugin_file(tmp_path, "TEXT = 'two'", "helper_of_null.py")
    assert Versions(zoo).of(zoo.methods["null"]) != before
