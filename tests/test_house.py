"""The architecture as a test: in which packages modules live, and which of them each may import."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: By top package and package within it those that it may import. `cli` and the commands are above
#: all others.
ARROWS: dict[str, dict[str, set[str]]] = {
    "salt_zoo": {
        "core": set(),
        "io": {"core"},
        "plugin": {"core", "io"},
        "rollout": {"core"},
        "costs": {"core"},
        "config": {"core", "io", "plugin"},
        "evaluation": {"core", "plugin", "rollout"},
        "training": {"core", "io", "plugin", "rollout", "costs", "config", "evaluation"},
        "preparation": {"core", "io", "plugin", "config"},
        "planning": {"core", "plugin", "costs", "config", "training"},
        "conformance": {
            "core",
            "plugin",
            "rollout",
            "costs",
            "config",
            "evaluation",
            "training",
        },
        "cli": {"core", "io", "plugin", "rollout", "config", "training", "preparation", "planning"},
    },
    "benchmarks": {
        "study": set(),
        "evaluate": {"study"},
        "stats": {"study", "evaluate"},
        "report": {"study", "evaluate", "stats"},
        "runner": {"study", "evaluate", "stats", "report"},
        "perf_suite": {"report"},
    },
}
#: By plugin the plugins that it builds on.
PLUGINS: dict[str, set[str]] = {
    "salt_zoo_wan": set(),
    "salt_zoo_metrics": set(),
    "salt_zoo_dmd": set(),
    "salt_zoo_consistency": set(),
    "salt_zoo_self_forcing": {"salt_zoo_wan"},
    "salt_zoo_cda": {"salt_zoo_dmd"},
    "salt_zoo_digits": {"salt_zoo_wan"},
    "salt_zoo_flow_matching": set(),
    "salt_zoo_ode": set(),
}


@functools.cache
def imports(file: Path) -> list[tuple[str, ...]]:
    """What a file imports, wherever in it, as words of dotted names."""
    found: list[tuple[str, ...]] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found += ((*node.module.split("."), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            found += (tuple(alias.name.split(".")) for alias in node.names)
    return found


def inside(package: str) -> set[str]:
    return {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}


@pytest.mark.parametrize("package", ARROWS)
def test_every_package_is_known(package):
    assert inside(package) == set(ARROWS[package])


@pytest.mark.parametrize(
    ("package", "room"), [(package, room) for package in ARROWS for room in ARROWS[package]]
)
def test_imports_point_one_way(package, room):
    allowed = ARROWS[package][room] | {room}
    for file in (ROOT / package / room).rglob("*.py"):
        for top, *rest in imports(file):
            if top == package and rest and rest[0] in ARROWS[package]:
                assert rest[0] in allowed, f"{file.relative_to(ROOT)} imports {package}.{rest[0]}"
            assert package == "benchmarks" or top != "benchmarks", file
            assert package == "benchmarks" or top not in PLUGINS, f"{file} imports {top}"


@pytest.mark.parametrize("plugin", PLUGINS)
def test_plugins_stand_on_the_core_and_on_plugins_that_they_name(plugin):
    for file in (ROOT / "plugins" / plugin).rglob("*.py"):
        for top, *_ in imports(file):
            assert top != "benchmarks", file
            assert top not in PLUGINS or top in PLUGINS[plugin] | {plugin}, f"{file}: {top}"


@pytest.mark.parametrize("package", ARROWS)
def test_the_arrows_make_no_circle(package):
    left = dict(ARROWS[package])
    while left:
        ground = [room for room, below in left.items() if not below & left.keys()]
        assert ground, f"a circle among {sorted(left)}"
        for room in ground:
            del left[room]


def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name."""
    found = {}
    for root in (ROOT, ROOT / "plugins"):
        for top in (*ARROWS, *PLUGINS):
            for file in (root / top).rglob("*.py"):
                words = file.relative_to(root).with_suffix("").parts
                found[".".join(words[:-1] if words[-1] == "__init__" else words)] = file
    return found


def test_the_files_make_no_circle():
    """Not for their types either."""
    files = modules()
    left = {
        name: {
            ".".join(words if ".".join(words) in files else words[:-1]) for words in imports(file)
        }
        & files.keys() - {name}
        for name, file in files.items()
    }
    while left:
        ground = [name for name, below in left.items() if not below & left.keys()]
        for name in ground:
            del left[name]
        if not ground:
            walked, name = [], min(left)
            while name not in walked:
                walked.append(name)
                name = min(left[name] & left.keys())
            pytest.fail(" -> ".join([*walked[walked.index(name) :], name]))


#: At most so many floors in one folder: a file, or a folder, stands above all that it imports.
FLOORS = 4
#: The two whole houses are taller: commands above the trainer, reports above statistics.
TALLER = {"salt_zoo": 8, "benchmarks": 6}


def test_a_folder_has_few_floors():
    files = modules()
    below: dict[tuple[str, ...], dict[str, set[str]]] = {}
    for name, file in files.items():
        if file.name == "__init__.py":
            continue
        words = tuple(name.split("."))
        for depth in range(1, len(words)):
            below.setdefault(words[:depth], {}).setdefault(words[depth], set())
        for target in imports(file):
            pairs = zip(words, target, strict=False)
            apart = next((i for i, (a, b) in enumerate(pairs) if a != b), 0)
            if apart:
                below[words[:apart]][words[apart]].add(target[apart])
    for folder, rooms in below.items():
        floors, left = 0, {room: set(under) for room, under in rooms.items()}
        while left:
            ground = {room for room, under in left.items() if not under & left.keys()}
            assert ground, f"a circle in {folder}: {sorted(left)}"
            left = {room: under for room, under in left.items() if room not in ground}
            floors += 1
        allowed = TALLER.get(".".join(folder), FLOORS)
        assert floors <= allowed, f"{'/'.join(folder)} has {floors} floors"


@pytest.mark.parametrize(
    ("call", "files"),
    [
        ("torch.load(", {"pickles.py"}),  # which reads tensors alone, without torch's warnings
        (".expanduser()", set()),  # raises where nobody has such a home; see `expanded`
    ],
)
def test_a_call_has_one_place(call, files):
    found = {
        path.name
        for top in ("salt_zoo", "plugins", "benchmarks")
        for path in (ROOT / top).rglob("*.py")
        if call in path.read_text(encoding="utf-8")
    }
    assert found == files


def test_no_module_is_a_catch_all():
    names = {path.name for top in ("salt_zoo", "benchmarks", "plugins") for path in
             (ROOT / top).rglob("*.py")}  # fmt: skip
    assert not names & {"utils.py", "helpers.py", "common.py", "misc.py"}


#: Where members are looked up by name and may be missing: in objects of plugins, which anybody has
#: written, and of other libraries. Elsewhere a capability is a protocol or a field with a default.
LOOKUPS = {
    "salt_zoo/plugin",
    "salt_zoo/core/base/annotations.py",
    "salt_zoo/core/networks/precision.py",
    "salt_zoo/config/overrides.py",
    "salt_zoo/io/yaml.py",
    "plugins/salt_zoo_wan/pipeline.py",
}


def test_capabilities_are_declared():
    for top in ("salt_zoo", "plugins"):
        for file in (ROOT / top).rglob("*.py"):
            place = file.relative_to(ROOT)
            if any(place.is_relative_to(known) for known in LOOKUPS):
                continue
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    optional = node.func.id == "getattr" and len(node.args) == 3
                    assert not optional and node.func.id != "hasattr", f"{place}:{node.lineno}"
