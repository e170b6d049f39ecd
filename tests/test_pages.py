"""The plugins' pages are true: options, commands and links exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for folder in ("plugins", "salt_zoo", "benchmarks")
    for path in (ROOT / folder).rglob("*.md")
)
#: Those of one plugin package each.
PACKAGES = sorted(path.parent for path in (ROOT / "plugins").glob("*/plugin.py"))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found), target


@pytest.mark.parametrize("page", [p for p in PAGES if "plugins" in p.parts], ids=named)
def test_lines_are_short(page):
    text = re.sub(r"```bash.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    long = [line for line in text.splitlines() if len(line) > 100 and not line.startswith("|")]
    assert long == []


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every command of a page's bash blocks."""
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            yield shlex.split(line, comments=True)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=named)
def test_commands_parse(page, monkeypatch, capsys):
    import benchmarks.perf
    import benchmarks.run
    import salt_zoo.cli

    programs = {
        ("salt-zoo",): salt_zoo.cli,
        ("python", "-m", "benchmarks.run"): benchmarks.run,
        ("python", "-m", "benchmarks.perf"): benchmarks.perf,
    }
    for module in programs.values():  # the words are parsed, and nothing is done
        monkeypatch.setattr(module, "guarded", lambda run: 0)
    for words in commands(page):
        for start, module in programs.items():
            if tuple(words[: len(start)]) == start:
                assert module.main(words[len(start) :]) == 0, words


def test_a_wrong_option_does_not_parse(monkeypatch, capsys):
    """So that the test above can fail."""
    import salt_zoo.cli

    monkeypatch.setattr(salt_zoo.cli, "guarded", lambda run: 0)
    with pytest.raises(SystemExit):
        salt_zoo.cli.main(["train", "run.yaml", "--out", "x", "--updates", "3"])


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_a_package_has_a_page_that_names_its_parts(package, zoo):
    text = (package / "README.md").read_text(encoding="utf-8")
    for registry in zoo.registries:
        for entry in registry:
            if zoo.module_of(entry.plugin) == f"{package.name}.plugin":
                assert f"`{entry.name}`" in text, entry.name


TABLE = re.compile(r"<!-- options: (\w+) (\S+) -->\n((?:\|.*\n)+)")
TABLES = [
    pytest.param(kind, name, rows, id=f"{kind}-{name}")
    for package in PACKAGES
    if (package / "README.md").exists()
    for kind, name, rows in TABLE.findall((package / "README.md").read_text(encoding="utf-8"))
]


def fields(
    model: type[BaseModel], written: set[str], before: str = ""
) -> Iterator[tuple[str, Any]]:
    """The options of a model with their defaults; those of groups with dots, or as one row."""
    for name, field in model.model_fields.items():
        kind, value = field.annotation, field.get_default(call_default_factory=True)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if f"{before}{name}" in written:
                yield f"{before}{name}", value.model_dump()
            else:
                yield from fields(kind, written, f"{before}{name}.")
        else:
            yield f"{before}{name}", "required" if value is PydanticUndefined else value


@pytest.mark.parametrize(("kind", "name", "rows"), TABLES)
def test_a_table_of_options_is_that_of_the_code(kind, name, rows, zoo):
    (registry,) = (registry for registry in zoo.registries if registry.kind == kind)
    written = {}
    for line in rows.splitlines()[2:]:
        option, default = (cell.strip() for cell in line.split("|")[1:3])
        written[option.strip("`")] = default.strip("`")
    known = dict(fields(registry[name].load().Config, set(written)))
    assert list(written) == list(known)
    for option, default in written.items():
        value = known[option]
        if isinstance(value, str) and len(value) > 60:
            assert default == "Wan's own", option
        else:
            assert (default if value == "required" else yaml.safe_load(default)) == value, option


def covers(shown: type[BaseModel], config: type[BaseModel]) -> bool:
    """Whether a table of one configuration has the options of another, related one."""
    related = issubclass(shown, config) or issubclass(config, shown)
    return related and config.model_fields.keys() <= shown.model_fields.keys()


def test_every_part_with_options_has_a_table(zoo):
    """One for each class; names of one class share it, and so do derived ones without more."""
    tables = {(param.values[0], param.values[1]) for param in TABLES}
    for registry in zoo.registries:
        shown = [entry.load().Config for entry in registry if (registry.kind, entry.name) in tables]
        for entry in registry:
            config = entry.options_model()
            if config.model_fields:
                assert any(covers(one, config) for one in shown), entry.name
