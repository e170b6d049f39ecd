"""What pyproject.toml allows is what the constraint files say was tested."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def pins(name: str) -> dict[str, Version]:
    """Package -> version of a constraints file, every line of which is one exact pin."""
    found = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            (pin,) = requirement.specifier
            assert pin.operator == "==", line
            found[canonicalize_name(requirement.name)] = Version(pin.version)
    return found


def floors(*extras: str) -> dict[str, Version]:
    """Package -> lowest version that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *(project["optional-dependencies"][e] for e in extras)]
    found = {}
    for requirement in (Requirement(line) for lines in lists for line in lines):
        (floor,) = requirement.specifier
        assert floor.operator == ">=", f"{requirement}: has no lowest version"
        found[canonicalize_name(requirement.name)] = Version(floor.version)
    return found


def test_the_lowest_versions_are_those_that_are_tested():
    assert pins("constraints-lowest.txt") == floors("test")


def test_the_usual_versions_are_allowed():
    tested = pins("constraints.txt")
    for name, floor in floors("test").items():
        assert tested[name] >= floor, name
