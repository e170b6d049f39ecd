"""`salt-zoo show`: what a registered part does and every option that it has."""

from __future__ import annotations

import argparse
import inspect
import json
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from salt_zoo.core.base.errors import ZooError, did_you_mean
from salt_zoo.io.printing import show
from salt_zoo.plugin.isolation.foreign import ForeignError
from salt_zoo.plugin.manager import Zoo
from salt_zoo.plugin.options.option_docs import OptionDoc, first_paragraph, option_docs
from salt_zoo.plugin.registration.registry import Registry

NAME = "show"
HELP = "show the options of a method, backbone, metric, ..., or the keys of a run's YAML file"

#: The kind that is no registered part: the file that `salt-zoo train` reads.
RUN = "run"


@dataclass(frozen=True)
class Description:
    """A part in words, or the file of a run, whose `name` and `plugin` are empty."""

    kind: str
    name: str
    plugin: str
    summary: str
    about: str
    options: list[OptionDoc]
    #: Of a metric: how its scores are read.
    reading: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "kind",
        metavar="KIND",
        help="method, objective, backbone, memory, size, dataset, metric or recipe; "
        "or run, for the keys of a run's YAML file",
    )
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="a registered name; 'salt-zoo list' shows them"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print a Markdown table")


def run(options: argparse.Namespace, zoo: Zoo) -> int:
    if options.kind == RUN:
        if options.name is not None:
            raise ZooError(
                f"show {RUN} {options.name}: write 'salt-zoo show {RUN}', without a name"
            )
        described = describe_run()
    else:
        described = describe_part(registry_of(zoo, options.kind), options.name)
    if options.json:
        show(json.dumps(asdict(described), indent=1))
    elif options.markdown:
        show(markdown(described))
    else:
        show(plain_text(described, shutil.get_terminal_size().columns))
    return 0


def registry_of(zoo: Zoo, kind: str) -> Registry:
    """The registry of a kind, by its singular or plural.

    Raises:
        ZooError: there is no such kind.
    """
    for registry in zoo.registries:
        if kind in (registry.kind, registry.plural):
            return registry
    kinds = [*(registry.kind for registry in zoo.registries), RUN]
    raise ZooError(f"unknown kind {kind!r}; {did_you_mean(kind, kinds)}")


def describe_part(registry: Registry, name: str | None) -> Description:
    """A registered part.

    Raises:
        ZooError: there is no such name, or the part cannot be loaded.
    """
    if name is None:
        known = ", ".join(entry.name for entry in registry)
        raise ZooError(f"show {registry.kind}: name one of the {registry.plural}: {known}")
    entry = registry[name]
    factory, model = entry.load(), entry.options_model()
    return Description(
        kind=registry.kind,
        name=entry.name,
        plugin=entry.plugin,
        summary=entry.summary,
        about=first_paragraph(factory.__doc__) if has_own_docstring(factory) else "",
        options=option_docs(model, entry.defaults),
        reading=reading_of(factory) if registry.kind == "metric" else "",
    )


def reading_of(factory: Any) -> str:
    """Kind and direction of a metric, as its class declares them."""
    from salt_zoo.plugin.isolation.metric_reading import Reading, direction_words

    try:
        read = Reading.of(factory, "metric")
    except ForeignError:  # it sets them when it is made
        return "direction: depends on its options"
    words = direction_words(read.direction, read.target) or "no direction"
    return f"direction: {read.direction} ({words}); kind: {read.kind}"


def has_own_docstring(factory: Any) -> bool:
    """Whether a docstring is the factory's: an object, such as a partial, shows its class's."""
    return isinstance(factory, type) or inspect.isroutine(factory)


def describe_run() -> Description:
    """The file that `salt-zoo train` reads."""
    from salt_zoo.config.run import RunConfig  # imports torch

    return Description(
        kind=RUN,
        name="",
        plugin="",
        summary="the YAML file of 'salt-zoo train'; method, backbone and dataset take their own "
        "options beside their name",
        about=first_paragraph(RunConfig.__doc__),
        options=option_docs(RunConfig),
    )


def plain_text(described: Description, width: int) -> str:
    """For a terminal of `width` columns: each option on a line, its documentation below it."""
    width = max(width, 40)

    def wrapped(text: str, indent: str = "") -> list[str]:
        return textwrap.wrap(
            text,
            width,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )

    title = f"{described.kind} {described.name} (plugin {described.plugin})"
    lines = [title if described.name else described.kind, *wrapped(described.summary)]
    lines += wrapped(described.reading)
    if described.about:
        lines += ["", *wrapped(described.about)]
    lines.append("" if described.options else "\nIt has no options.")
    for option in described.options:
        facts = [option.type, option.range, default_words(option, "default {}")]
        lines += [f"{option.key}: {', '.join(filter(None, facts))}", *wrapped(option.text, "    ")]
    return "\n".join(lines)


def markdown(described: Description) -> str:
    """A section of a page: heading, summary and a table of the options."""
    title = f"{described.kind} `{described.name}`" if described.name else described.kind
    plugin = f" (plugin `{described.plugin}`)" if described.plugin else ""
    parts = [f"### {title}", f"{described.summary}{plugin}"]
    if described.reading:
        parts.append(f"{described.reading[0].upper()}{described.reading[1:]}.")
    if described.about:
        parts.append(described.about)
    parts.append(markdown_table(described.options) if described.options else "It has no options.")
    return "\n\n".join(parts)


def markdown_table(options: Sequence[OptionDoc]) -> str:
    """The options as a table of GitHub's Markdown."""
    rows = [["key", "type", "range", "default", "meaning"], ["---"] * 5]
    for option in options:
        default = default_words(option, "`{}`")
        rows.append([f"`{option.key}`", option.type, option.range, default, option.text])
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def default_words(option: OptionDoc, form: str) -> str:
    """The default in the form given; nothing for a group whose keys have theirs."""
    if option.required:
        return "required"
    keys_say = option.is_group and option.default is not None
    return "" if keys_say else form.format(written(option.default))


def written(value: Any) -> str:
    """A value as a YAML file writes it, on one line."""
    import yaml

    text: str = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, width=float("inf"), sort_keys=False
    )
    return text.removesuffix("\n...\n").rstrip("\n")
