"""Finding plugins, keeping broken ones from doing harm, and the registries they fill."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from salt_zoo import hookspecs
from salt_zoo.errors import ZooError, did_you_mean, reason
from salt_zoo.printing import say
from salt_zoo.registry import Entry, Registry

GROUP = "salt_zoo"


@dataclass(frozen=True)
class Broken:
    """A plugin that could not be used, and why, in one line."""

    plugin: str
    reason: str


class Zoo:
    """All parts that the installed plugins registered, and their hooks."""

    def __init__(self) -> None:
        self.methods = Registry("method", "methods")
        self.backbones = Registry("backbone", "backbones")
        self.sizes = Registry("size", "sizes")
        self.memories = Registry("memory", "memories")
        self.objectives = Registry("objective", "objectives")
        self.metrics = Registry("metric", "metrics")
        self.datasets = Registry("dataset", "datasets")
        self.recipes = Registry("recipe", "recipes")
        self.broken: list[Broken] = []
        self.plugins: list[str] = []
        self._manager = pluggy.PluginManager("salt_zoo")
        self._manager.add_hookspecs(hookspecs)
        self._hooks = GuardedHooks(self._manager, self.plugins)

    @property
    def registries(self) -> tuple[Registry, ...]:
        return (
            self.methods,
            self.backbones,
            self.sizes,
            self.memories,
            self.objectives,
            self.metrics,
            self.datasets,
            self.recipes,
        )

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

    def add_plugin(self, name: str, load: Callable[[], Any]) -> None:
        """Load and register one plugin; if it fails in any way, only `broken` grows."""
        try:
            plugin = load()
            if self._manager.is_registered(plugin):
                return  # an installed plugin that `-p` names again
            self._manager.register(plugin, name)
            if unknown := _misspelt(plugin):
                raise ValueError(
                    f"there is no hook named {unknown!r}; {did_you_mean(unknown, SPECIFIED)}"
                )
            if not self._manager.get_hookcallers(plugin):
                raise ValueError("it has no function marked with salt_zoo.hookimpl")
            for registry in self.registries:
                registry.plugin = name
            _caller_of(self._manager, plugin, "register")(zoo=self)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may exit, or cancel, or raise what it likes
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            for registry in self.registries:
                registry.drop(name)
            self.broken.append(Broken(name, reason(error)))
        else:
            self.plugins.append(name)


class GuardedHooks:
    """The hooks of all plugins as functions; a plugin that raises costs a warning, not the run.

    A hook returns what its implementations returned, without None, last registered first. An
    implementation that has failed once is not called again.
    """

    def __init__(self, manager: pluggy.PluginManager, plugins: Sequence[str]) -> None:
        self._manager = manager
        self._plugins = plugins
        self._failed: set[tuple[str, str]] = set()
        self._cache: dict[tuple[str, int], list[tuple[str, Any]]] = {}

    def __getattr__(self, hook: str) -> Callable[..., list[Any]]:
        if hook not in SPECIFIED:
            raise AttributeError(f"there is no hook named {hook!r}")

        def call(**arguments: Any) -> list[Any]:
            results: list[Any] = []
            for name, caller in self._callers(hook):
                if (name, hook) in self._failed:
                    continue
                try:
                    results.extend(caller(**arguments))
                except KeyboardInterrupt:
                    raise
                except BaseException as error:
                    self._failed.add((name, hook))
                    say(
                        f"warning: plugin {name!r} failed in {hook} and is not asked again: "
                        f"{reason(error)}"
                    )
            return results

        return call

    def _callers(self, hook: str) -> list[tuple[str, Any]]:
        """Every plugin that implements `hook`, with a caller of it alone."""
        key = (hook, len(self._plugins))  # hooks are called every step, plugins are loaded once
        if key not in self._cache:
            self._cache[key] = []
            for name in reversed(self._plugins):
                plugin = self._manager.get_plugin(name)
                names = [caller.name for caller in self._manager.get_hookcallers(plugin) or ()]
                if hook in names:
                    self._cache[key].append((name, _caller_of(self._manager, plugin, hook)))
        return self._cache[key]


#: The names of all hooks.
SPECIFIED = frozenset(
    name for name, value in vars(hookspecs).items() if hasattr(value, "salt_zoo_spec")
)


def _caller_of(manager: pluggy.PluginManager, plugin: Any, hook: str) -> Any:
    """Calls a hook in one plugin only."""
    return manager.subset_hook_caller(hook, [p for p in manager.get_plugins() if p is not plugin])


def _misspelt(plugin: Any) -> str | None:
    """The name of a hookimpl that matches no specification."""
    for name in dir(plugin):
        options = getattr(getattr(plugin, name, None), "salt_zoo_impl", None)
        if isinstance(options, dict):
            hook = options.get("specname") or name
            if hook not in SPECIFIED:
                return str(hook)
    return None


def load_zoo(extra: Sequence[str] = ()) -> Zoo:
    """The zoo of all installed plugins and of `extra` ones: module names or paths of `.py` files.

    Built-in plugins are loaded first, so that no other can take their names.

    Raises:
        ZooError: a plugin named in `extra` does not exist. (One that exists and is broken is
            listed in `Zoo.broken`, as an installed one would be.)
    """
    zoo = Zoo()
    points = _entry_points(zoo)
    points.sort(key=lambda point: (_distribution(point) != "salt-zoo", point.name))
    seen: set[str] = set()
    for point in points:
        if point.value not in seen:  # a second copy on the path is the same plugin
            seen.add(point.value)
            zoo.add_plugin(_free_name(zoo, point.name), point.load)
    for name in dict.fromkeys(extra):
        zoo.add_plugin(_free_name(zoo, name), _named(name))
    return zoo


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


def _distribution(point: importlib.metadata.EntryPoint) -> str:
    try:
        return str(point.dist.name) if point.dist else ""
    except Exception:  # damaged metadata of a foreign package
        return ""


def _free_name(zoo: Zoo, name: str) -> str:
    taken = {*zoo.plugins, *(broken.plugin for broken in zoo.broken)}
    number, free = 2, name
    while free in taken:
        number, free = number + 1, f"{name} ({number})"
    return free


def _named(name: str) -> Callable[[], ModuleType]:
    """How to load what `-p name` names; a ZooError if there is nothing of that name."""
    path = Path(name)
    if name.endswith(".py") or path.is_file():
        if not path.is_file():
            raise ZooError(f"-p {name}: there is no such file")
        return lambda: _load_file(path.resolve())
    try:
        missing = importlib.util.find_spec(name) is None
    except ModuleNotFoundError as error:
        # of the name itself, or of something that a parent package imports?
        missing = error.name is not None and f"{name}.".startswith(f"{error.name}.")
    except (ValueError, ImportError):
        missing = name not in sys.modules
    except KeyboardInterrupt:
        raise
    except BaseException:
        missing = False  # a parent package is there and broken: importing it will tell
    if missing:
        raise ZooError(f"-p {name}: no module of that name can be imported, and it is not a file")
    return lambda: importlib.import_module(name)


def _load_file(path: Path) -> ModuleType:
    """Import a file as a module of its own, even beside another file of the same name."""
    module_name = f"salt_zoo_file_{path.stem}_{hashlib.sha256(bytes(path)).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pydantic look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module
