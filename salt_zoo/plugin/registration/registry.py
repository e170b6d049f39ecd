"""Named parts and where each came from."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from salt_zoo.core.base.config import StrictModel, validate
from salt_zoo.core.base.errors import ZooError, did_you_mean, reason, shown
from salt_zoo.core.base.facts import share
from salt_zoo.core.base.imports import asked_of
from salt_zoo.core.base.interrupts import is_users
from salt_zoo.plugin.isolation.foreign import BrokenPart, explain
from salt_zoo.plugin.isolation.whole_protocols import check_protocols

#: Of a part; names of metrics are parts of names of files.
NAME = re.compile(r"(?=.{1,80}\Z)[a-z0-9]+([-_.][a-z0-9]+)*")
TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


class NoOptions(StrictModel):
    """The options of a part that has none."""


class RegistrationError(Exception):
    """A plugin registered something wrongly; the plugin manager lists the plugin as broken."""


@dataclass(frozen=True)
class Entry:
    """One registered name. `target` is a factory, or `"module:attribute"` to import when used."""

    kind: str
    name: str
    target: Any
    summary: str
    plugin: str
    defaults: dict[str, Any]

    def load(self) -> Any:
        """The factory itself."""
        if not isinstance(self.target, str):
            return self.target
        module, _, attribute = self.target.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except BaseException as error:  # foreign code may fail in any way
            if is_users(error):
                raise
            why = f"({reason(error)}){asked_of(error)}"
            raise BrokenPart(f"{self}: {self.target} cannot be loaded {why}") from error
        if not callable(found):
            raise BrokenPart(f"{self}: {self.target} cannot be called")
        return found

    def options_model(self) -> type[BaseModel]:
        """The pydantic model of its options: the factory's `Config`, or `NoOptions`.

        Raises:
            ZooError: the target cannot be loaded, or its `Config` is something else.
        """
        model = getattr(self.load(), "Config", NoOptions)
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise ZooError(f"{self.kind} {self}: its Config is not a pydantic model")
        return model

    def is_made_by(self, factory: type) -> bool:
        """Whether this class is its target; loads nothing."""
        if isinstance(self.target, str):
            return f"{factory.__module__}:{factory.__qualname__}" == self.target
        return self.target is factory

    def __str__(self) -> str:
        return f"{self.name!r} of plugin {self.plugin!r}"


class Registry:
    """The known names of one kind of part (methods, backbones, ...)."""

    def __init__(self, kind: str, plural: str) -> None:
        self.kind, self.plural = kind, plural
        self._entries: dict[str, Entry] = {}
        self._facts: dict[Any, dict[Any, Any]] = {}  # of parts, by what they are made from
        self.plugin = "salt_zoo"  # whose registrations are being taken
        #: The names that were looked up, where somebody wants to know; see `Zoo.watching`.
        self.seen: set[str] | None = None

    def add(self, name: str, target: Any, summary: str, **defaults: Any) -> None:
        """Register `target` under `name`.

        Args:
            name: lower-case words joined by hyphens.
            target: a class or function called with `(config, zoo)`, whose attribute `Config` is the
                pydantic model of its options (none: no options); or `"module:attribute"`, which is
                imported when it is first used. Its attribute `version`, if it declares one, is an
                integer to raise whenever its numbers change: results are kept until then. Without
                one they are kept until the plugin's files change.
            summary: one line for `salt-zoo list`.
            **defaults: options whose defaults differ from the model's (one class, several names).

        Raises:
            RegistrationError: the name is taken or malformed, or the target cannot be called.
        """
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise RegistrationError(
                f"{self.kind} name {shown(name)}: write lower-case words joined by hyphens, at "
                "most 80 characters"
            )
        if name in self._entries:
            owner = self._entries[name].plugin
            raise RegistrationError(f"{self.kind} {name!r} is already registered by {owner!r}")
        if isinstance(target, str):
            if not TARGET.fullmatch(target):
                raise RegistrationError(
                    f"{self.kind} {name!r}: target {target!r} is not of the form 'module:attribute'"
                )
        elif not callable(target):
            raise RegistrationError(f"{self.kind} {name!r}: the target cannot be called")
        if not isinstance(summary, str) or not summary.strip():
            raise RegistrationError(f"{self.kind} {name!r}: a one-line summary is missing")
        summary = " ".join("".join(c if c.isprintable() else " " for c in summary).split())
        self._entries[name] = Entry(self.kind, name, target, summary, self.plugin, defaults)

    def entries(self) -> dict[str, Entry]:
        """All entries by name, as they are now."""
        return dict(self._entries)

    def restore(self, entries: dict[str, Entry]) -> None:
        """Go back to what `entries()` returned: a plugin turned out broken."""
        self._entries = dict(entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(sorted(self._entries.values(), key=lambda entry: entry.name))

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Entry:
        if self.seen is not None and name in self._entries:
            self.seen.add(name)
        try:
            return self._entries[name]
        except KeyError:
            hint = did_you_mean(str(name), self._entries)
            more = "a plugin in a file is loaded with -p FILE"
            raise ZooError(f"unknown {self.kind} {name!r}; {hint}; {more}") from None

    def configure(self, name: str, options: dict[str, Any], where: str) -> BaseModel:
        """The options of `name`, checked and with every default filled in."""
        try:
            entry = self[name]
        except ZooError as error:
            raise ZooError(f"{where}: {error}") from None
        if not isinstance(options, Mapping):
            raise ZooError(
                f"{where}: should be a group of keys, not {shown(options)}; "
                "to switch it off, write null"
            )
        return validate(entry.options_model(), merge(entry.defaults, options), where)

    def create(self, name: str, config: BaseModel, zoo: Any) -> Any:
        """Make the part `name` from options that `configure` returned.

        Raises:
            ZooError: the plugin's code fails, or the part has half of a protocol; the line names
                the plugin.
        """
        entry = self[name]
        factory = entry.load()
        try:
            made = factory(config, zoo)
        except ZooError:
            raise
        except BaseException as error:
            if is_users(error):
                raise
            text = f"{self.kind} {entry}: cannot be made ({explain(error)})"
            raise BrokenPart(text) from error
        check_protocols(made, self.kind, f"{self.kind} {entry}")
        self.alike(name, made, config)
        return made

    def alike(self, name: str, made: Any, config: BaseModel) -> None:
        """Share what a plan measures of `made` with all that are made alike, as `create` does: for
        parts that a part makes itself, such as a teacher of its own."""
        share(made, self._facts.setdefault((name, type(made), repr(config)), {}))


def merge(defaults: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """`options` over `defaults`, group by group; None in `options` switches a group off."""
    result = dict(defaults)
    for key, value in options.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge(result[key], value)
        else:
            result[key] = value
    return result
