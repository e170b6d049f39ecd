"""The hooks of plugins as functions that no plugin can break."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pluggy

from salt_zoo.core.base.errors import ZooError, shown, text_of
from salt_zoo.io.printing import say
from salt_zoo.plugin.isolation.foreign import ForeignError, foreign, show_traceback
from salt_zoo.plugin.isolation.surroundings import settings_kept
from salt_zoo.plugin.registration import spec as hookspecs

#: Of one plugin in a report.
MOST_SECTIONS = 1000


class GuardedHooks:
    """The hooks of all plugins as functions; a plugin that raises costs a warning, not the run.

    A hook returns what its implementations returned, without None, last registered first. An
    implementation that has failed once is not called again. Settings of the process that it
    changes are put back.
    """

    def __init__(self, manager: pluggy.PluginManager, plugins: list[str]) -> None:
        self._manager = manager
        self.plugins = plugins
        self._failed: set[tuple[str, str]] = set()
        self._meddled: set[tuple[str, str]] = set()
        self._cache: dict[tuple[str, int], list[tuple[str, Any]]] = {}

    def __getattr__(self, hook: str) -> Callable[..., list[Any]]:
        if hook not in SPECIFIED:
            raise AttributeError(f"there is no hook named {hook!r}")

        def call(**arguments: Any) -> list[Any]:
            results: list[Any] = []
            for name, caller in self._callers(hook):
                if (name, hook) in self._failed:
                    continue
                what = f"plugin {name!r} failed in {hook} and is not asked again"
                changed: list[str] = []
                try:
                    with settings_kept() as changed, foreign(what):
                        found = caller(**{key: _own(value) for key, value in arguments.items()})
                        if hook == "report_sections":
                            found = [_sections(one) for one in found]
                    results.extend(found)
                except ZooError as error:
                    self._failed.add((name, hook))
                    show_traceback(error)
                    text = text_of(error)
                    if not isinstance(error, ForeignError):  # the plugin's own message
                        text = f"{what}: {text}"
                    say(f"warning: {text}")
                if changed and (name, hook) not in self._meddled:
                    self._meddled.add((name, hook))
                    say(
                        f"warning: plugin {name!r} changed {', '.join(changed)} in {hook}, which "
                        "is undone"
                    )
            return results

        return call

    def _callers(self, hook: str) -> list[tuple[str, Any]]:
        """Every plugin that implements `hook`, with a caller of it alone."""
        key = (hook, len(self.plugins))  # hooks are called every step, plugins are loaded once
        if key not in self._cache:
            self._cache[key] = []
            for name in reversed(self.plugins):
                plugin = self._manager.get_plugin(name)
                names = [caller.name for caller in self._manager.get_hookcallers(plugin) or ()]
                if hook in names:
                    self._cache[key].append((name, caller_of(self._manager, plugin, hook)))
        return self._cache[key]


#: The names of all hooks.
SPECIFIED = frozenset(
    name for name, value in vars(hookspecs).items() if hasattr(value, "salt_zoo_spec")
)


def caller_of(manager: pluggy.PluginManager, plugin: Any, hook: str) -> Any:
    """Calls a hook in one plugin only."""
    return manager.subset_hook_caller(hook, [p for p in manager.get_plugins() if p is not plugin])


def check_plain(implementation: pluggy.HookImpl) -> None:
    """Refuses hooks of which nobody would run the body."""
    function = implementation.function
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ValueError(f"{function.__name__} is async; a hook must be a plain function")
    wraps = implementation.wrapper or implementation.hookwrapper
    if inspect.isgeneratorfunction(function) and not wraps:
        raise ValueError(f"{function.__name__} is a generator; a hook must be a plain function")


def misspelt(plugin: Any) -> str | None:
    """The name of a hookimpl that matches no specification."""
    for name in dir(plugin):
        if inspect.isdatadescriptor(getattr(type(plugin), name, None)):
            continue  # a property may do anything when it is read
        options = getattr(getattr(plugin, name, None), "salt_zoo_impl", None)
        if isinstance(options, dict):
            hook = options.get("specname") or name
            if hook not in SPECIFIED:
                return str(hook)
    return None


def _own(value: Any) -> Any:
    """An argument that a plugin may change without harm to anybody."""
    return copy.deepcopy(value) if isinstance(value, dict | list) else value


def _sections(found: Any) -> list[tuple[str, str]]:
    """What `report_sections` returned, if it is what it should be."""
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise TypeError(f"it returned {shown(found)}; it must be a list of pairs (title, text)")
    sections: list[tuple[str, str]] = []
    for one in found:
        if len(sections) >= MOST_SECTIONS:
            raise ValueError(f"it has no end: more than {MOST_SECTIONS} sections")
        pair = tuple(one) if isinstance(one, list | tuple) else ()
        if len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise TypeError(f"a section is {shown(one)}; it must be a pair of texts, (title, text)")
        sections.append((pair[0], pair[1]))
    return sections
