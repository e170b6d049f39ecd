"""`salt-zoo new`: the package of a new method, complete and working, to be changed."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shlex
from pathlib import Path

from salt_zoo.cli.arguments import folder
from salt_zoo.core.base.errors import ZooError, shown
from salt_zoo.io.files.storage import atomic_folder, check_folder, readable_errors
from salt_zoo.io.printing import say, show
from salt_zoo.plugin.manager import Zoo
from salt_zoo.plugin.registration.registry import NAME as REGISTERED_NAME

NAME = "new"
HELP = "create an installable package for a new method: code, test and README"

TEMPLATES = Path(__file__).parent / "templates" / "method"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="KIND", choices=["method"], help="method")
    parser.add_argument("name", metavar="NAME", help="lower-case words joined by hyphens")
    parser.add_argument("--out", type=folder, help="output folder (default: salt-zoo-NAME)")


def run(options: argparse.Namespace, zoo: Zoo) -> int:
    name = options.name
    check_name(name, zoo)
    out = options.out or Path(f"salt-zoo-{name}")
    check_target(out)
    write_package(name, Path(os.path.realpath(out)))
    show(out)
    there = shlex.quote(str(out))
    say(f"test it: (cd {there} && python -m pytest)")
    say(f"install it: pip install -e {there} && salt-zoo show method {name}")
    return 0


def check_name(name: str, zoo: Zoo) -> None:
    """Refuse a name that the method, or its package, could not have.

    Raises:
        ZooError: it is malformed or taken.
    """
    if not REGISTERED_NAME.fullmatch(name):
        raise ZooError(
            f"method name {shown(name)}: write lower-case words joined by hyphens, at most "
            "80 characters, as in endpoint-regression"
        )
    if name in zoo.methods:
        owner = zoo.methods[name].plugin
        raise ZooError(f"method {name!r} is already registered by {owner!r}; choose another name")
    if importlib.util.find_spec(package_of(name)) is not None:
        raise ZooError(
            f"method name {name!r}: its package would be {package_of(name)}, and there is one of "
            "that name already; choose another name"
        )


def check_target(out: Path) -> None:
    """Refuse to write where something is.

    Raises:
        ZooError: there is a file or a folder that is not empty, or it is the current folder.
    """
    with readable_errors(out):
        if os.path.realpath(out) == os.getcwd():
            raise ZooError(f"--out {out}: is the current folder; name a new one")
        if out.is_dir() and any(out.iterdir()):
            raise ZooError(f"--out {out}: is a folder that is not empty; name a new one")
        if out.exists() and not out.is_dir():
            raise ZooError(f"--out {out}: is a file; name a new folder")
    check_folder(out)


def write_package(name: str, out: Path) -> None:
    """Write the package of the method `name` to the folder `out`, all of it or nothing."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=False,  # nothing here is HTML
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    package = package_of(name)
    places = {
        "pyproject.toml.j2": "pyproject.toml",
        "README.md.j2": "README.md",
        "init.py.j2": f"{package}/__init__.py",
        "plugin.py.j2": f"{package}/plugin.py",
        "method.py.j2": f"{package}/method.py",
        "test_method.py.j2": "tests/test_method.py",
    }
    words = {"name": name, "package": package, "distribution": f"salt-zoo-{name}"}
    with atomic_folder(out) as draft:
        for template, place in places.items():
            path = draft / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(environment.get_template(template).render(words), encoding="utf-8")


def package_of(name: str) -> str:
    """The Python package of a method.

    >>> package_of("endpoint-regression")
    'salt_zoo_endpoint_regression'
    """
    return f"salt_zoo_{re.sub('[-.]', '_', name)}"
