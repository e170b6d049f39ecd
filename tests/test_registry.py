"""Names, origins, options of registered parts."""

from __future__ import annotations

import pytest

from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.base.errors import ZooError
from salt_zoo.plugin.registration.registry import RegistrationError, Registry, merge


class Options(StrictModel):
    weight: float = 1.0
    inner: dict[str, int] | None = None


class Part:
    Config = Options

    def __init__(self, config, zoo):
        self.config = config


@pytest.fixture
def registry() -> Registry:
    made = Registry("method", "methods")
    made.plugin = "mine"
    made.add("dmd", Part, "a  summary\nof two lines")
    made.add("heavy-dmd", Part, "the same with another default", weight=3.0)
    return made


def test_an_entry_knows_its_origin(registry):
    entry = registry["dmd"]
    assert (entry.plugin, entry.summary) == ("mine", "a summary of two lines")
    assert [entry.name for entry in registry] == ["dmd", "heavy-dmd"]
    assert "dmd" in registry and "cda" not in registry


def test_an_unknown_name_gets_the_nearest_one(registry):
    with pytest.raises(ZooError, match="unknown method 'dmdd'; did you mean 'dmd'"):
        registry["dmdd"]
    with pytest.raises(ZooError, match="known: dmd, heavy-dmd"):
        registry["zebra"]


@pytest.mark.parametrize(
    "name", ["", "Dmd", "d md", " dmd", "dmd\n", "-dmd", "dmd-", "d--md", "d/md", None]
)
def test_malformed_names(registry, name):
    with pytest.raises(RegistrationError, match="lower-case words joined by hyphens"):
        registry.add(name, Part, "summary")


@pytest.mark.parametrize("name", ["sc-dmd", "wan2.1-t2v-1.3b", "self_forcing", "2d"])
def test_well_formed_names(registry, name):
    registry.add(name, Part, "summary")
    assert registry[name].name == name


def test_a_taken_name_names_its_owner(registry):
    registry.plugin = "other"
    with pytest.raises(RegistrationError, match="already registered by 'mine'"):
        registry.add("dmd", Part, "summary")


def test_options_over_the_entrys_defaults_over_the_models(registry):
    assert registry.configure("dmd", {}, "test").weight == 1.0
    assert registry.configure("heavy-dmd", {}, "test").weight == 3.0
    assert registry.configure("heavy-dmd", {"weight": 2}, "test").weight == 2.0
    with pytest.raises(ZooError, match="test: wieght: unknown key; did you mean 'weight'"):
        registry.configure("dmd", {"wieght": 2}, "test")


def test_a_part_without_options(registry):
    registry.add("plain", lambda config, zoo: "made", "a function")
    config = registry.configure("plain", {}, "test")
    assert registry.create("plain", config, None) == "made"
    with pytest.raises(ZooError, match="unknown key; none is known"):
        registry.configure("plain", {"any": 1}, "test")


def test_a_dotted_target_is_imported_when_used(registry):
    registry.add("ordered", "collections:OrderedDict", "from the standard library")
    import collections

    assert registry["ordered"].load() is collections.OrderedDict


def test_restore_forgets_what_came_later(registry):
    before = registry.entries()
    registry.plugin = "other"
    registry.add("theirs", Part, "summary")
    assert registry["theirs"].plugin == "other"
    registry.restore(before)
    assert "theirs" not in registry and registry.entries() == before


def test_merge_goes_group_by_group():
    defaults = {"a": {"x": 1, "y": {"z": 2}}, "b": 3}
    assert merge(defaults, {"a": {"y": {"z": 4}}}) == {"a": {"x": 1, "y": {"z": 4}}, "b": 3}
    assert merge(defaults, {"a": None}) == {"a": None, "b": 3}
    assert defaults == {"a": {"x": 1, "y": {"z": 2}}, "b": 3}
