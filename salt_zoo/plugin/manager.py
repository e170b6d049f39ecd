"""Finding plugins, keeping broken ones from doing harm, and the registries they fill."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pluggy

from salt_zoo.core.base.errors import ZooError, did_you_mean, reason
from salt_zoo.core.base.interrupts import is_users
from salt_zoo.plugin.files import named
from salt_zoo.plugin.isolation.foreign import show_traceback
from salt_zoo.plugin.isolation.surroundings import output_kept, settings_kept
from salt_zoo.plugin.registration import spec as hookspecs
from salt_zoo.plugin.registration.hooks import (
    SPECIFIED,
    GuardedHooks,
    caller_of,
    check_plain,
    misspelt,
)
from salt_zoo.plugin.registration.registries import Registries
from salt_zoo.plugin.registration.registry import Entry, RegistrationError, Registry

__all__ = ["SPECIFIED", "Broken", "Zoo", "load_zoo", "refuse_broken"]

GROUP = "salt_zoo"


@dataclass(frozen=True)
class Broken:
    """A plugin that could not be used, and why, in one line; `asked` for by name, with `-p`."""

    plugin: str
    reason: str
    asked: bool = False


class Zoo(Registries):
    """All parts that the installed plugins registered, and their hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: list[Broken] = []
        self.plugins: list[str] = []
        #: Lines about what plugins did and should not; they are used all the same.
        self.notices: list[str] = []
        self._manager = pluggy.PluginManager("salt_zoo")
        self._manager.add_hookspecs(hookspecs)
        self._hooks = GuardedHooks(self._manager, self.plugins)

    @property
    def hook(self) -> GuardedHooks:
        """Calls the lifecycle hooks of every plugin: `zoo.hook.step_finished(step=1, logs={})`."""
        return self._hooks

    @contextmanager
    def watching(self) -> Iterator[list[Entry]]:
        """The entries of all parts that are looked up inside the block, filled in at its end."""
        found: list[Entry] = []
        before = [registry.seen for registry in self.registries]
        for registry in self.registries:
            registry.seen = set()
        try:
            yield found
        finally:
            for registry, outer in zip(self.registries, before, strict=True):
                names, registry.seen = registry.seen or set(), None
                found += [registry[name] for name in sorted(names)]
                registry.seen = None if outer is None else outer | names

    def module_of(self, plugin: str) -> str | None:
        """The module of a plugin, by the name under which it is listed."""
        loaded = self._manager.get_plugin(plugin)
        return loaded.__name__ if isinstance(loaded, ModuleType) else None

    def add_plugin(self, name: str, load: Callable[[], Any], asked: bool = False) -> None:
        """Load and register one plugin; if it fails in any way, only `broken` grows.

        What it prints goes to standard error, and settings of the process that it changes are put
        back, which is a line in `notices`.
        """
        tables, plugins = self._tables(), list(self.plugins)
        with output_kept(), settings_kept() as changed:
            try:
                known = self._load(name, load)
                if wrong := self._altered(tables, name):
                    raise RegistrationError(wrong)
                if self.plugins is not self._hooks.plugins or self.plugins != plugins:
                    raise RegistrationError("it altered zoo.plugins")
            except BaseException as error:  # a plugin may exit, or cancel, or raise what it likes
                if is_users(error):
                    raise
                show_traceback(error)
                if self._manager.has_plugin(name):
                    self._manager.unregister(name=name)
                self.plugins = self._hooks.plugins
                self.plugins[:] = plugins
                for key, (registry, entries) in tables.items():
                    setattr(self, key, registry)
                    registry.restore(entries)
                self.broken.append(Broken(name, reason(error), asked))
            else:
                if not known:
                    self.plugins.append(name)
        self.notices += [
            f"plugin {name!r} changed {what} while it was loaded, which is undone"
            for what in changed
        ]

    def _load(self, name: str, load: Callable[[], Any]) -> bool:
        """Load a plugin and let it register; says whether it is one that is there already."""
        plugin = load()
        if self._manager.is_registered(plugin):
            return True  # an installed plugin that `-p` names again
        self._manager.register(plugin, name)
        if unknown := misspelt(plugin):
            raise ValueError(
                f"there is no hook named {unknown!r}; {did_you_mean(unknown, SPECIFIED)}"
            )
        callers = self._manager.get_hookcallers(plugin)
        if not callers:
            raise ValueError("it has no function marked with salt_zoo.hookimpl")
        for caller in callers:
            for implementation in caller.get_hookimpls():
                if implementation.plugin is plugin:
                    check_plain(implementation)
        for registry in self.registries:
            registry.plugin = name
        caller_of(self._manager, plugin, "register")(zoo=self)
        return False

    def _tables(self) -> dict[str, tuple[Registry, dict[str, Entry]]]:
        return {one.plural: (one, one.entries()) for one in self.registries}

    def _altered(
        self, tables: Mapping[str, tuple[Registry, Mapping[str, Entry]]], plugin: str
    ) -> str | None:
        """What a plugin did to the tables beside adding its own entries, in words."""
        for key, (registry, before) in tables.items():
            if getattr(self, key) is not registry:
                return f"it replaced zoo.{key}"
            after = registry.entries()
            for name, entry in before.items():
                if after.get(name) is not entry:
                    return f"it altered {registry.kind} {entry}; a plugin may add parts only"
            for name in after.keys() - before.keys():
                if not isinstance(after[name], Entry) or after[name].plugin != plugin:
                    return f"it put {registry.kind} {name!r} there without zoo.{key}.add"
        return None


def load_zoo(extra: Sequence[str] = ()) -> Zoo:
    """The zoo of all installed plugins and of `extra` ones: module names or paths of `.py` files.

    Built-in plugins are loaded first, so that no other can take their names.

    Raises:
        ZooError: a plugin named in `extra` does not exist. (One that exists and is broken is
            listed in `Zoo.broken`; see `refuse_broken`.)
    """
    zoo = Zoo()
    points = _entry_points(zoo)
    name_of = functools.cache(_name_of)  # one package has many plugins
    points.sort(key=lambda point: (name_of(point.dist) != "salt-zoo", point.name))
    seen: set[str] = set()
    for point in points:
        if point.value not in seen:  # a second copy on the path is the same plugin
            seen.add(point.value)
            zoo.add_plugin(_free_name(zoo, point.name), point.load)
    for name in dict.fromkeys(extra):
        zoo.add_plugin(_free_name(zoo, name), named(name), asked=True)
    return zoo


def refuse_broken(zoo: Zoo) -> None:
    """Without a plugin that was asked for by name a command would do something else.

    Raises:
        ZooError: such a plugin is broken.
    """
    for broken in zoo.broken:
        if broken.asked:
            raise ZooError(f"-p {broken.plugin}: the plugin cannot be used: {broken.reason}")


def _entry_points(zoo: Zoo) -> list[importlib.metadata.EntryPoint]:
    """The group's entry points; a package whose metadata cannot be read is listed as broken."""
    try:
        return list(importlib.metadata.entry_points(group=GROUP))
    except Exception:
        pass  # one damaged package fails the whole search: look at each by itself
    points: list[importlib.metadata.EntryPoint] = []
    for distribution in importlib.metadata.distributions():
        try:
            points.extend(distribution.entry_points.select(group=GROUP))
        except Exception as error:
            name = distribution.metadata["Name"] or "unnamed package"
            zoo.broken.append(Broken(name, f"its entry points cannot be read ({reason(error)})"))
    return points


def _name_of(distribution: importlib.metadata.Distribution | None) -> str:
    try:
        return str(distribution.name) if distribution else ""
    except Exception:  # damaged metadata of a foreign package
        return ""


def _free_name(zoo: Zoo, name: str) -> str:
    taken = {*zoo.plugins, *(broken.plugin for broken in zoo.broken)}
    number, free = 2, name
    while free in taken:
        number, free = number + 1, f"{name} ({number})"
    return free
