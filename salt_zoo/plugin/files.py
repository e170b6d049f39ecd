"""What `-p` names: a module, or a file that is one."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from salt_zoo.core.base.errors import ZooError, as_given
from salt_zoo.core.base.interrupts import is_users

#: How the names of the modules of plugin files begin.
FILE = "salt_zoo_file_"


def named(name: str) -> Callable[[], ModuleType]:
    """How to load what `-p name` names; a ZooError if there is nothing of that name."""
    path = Path(name)
    if name.endswith(".py") or path.is_file():
        if not path.is_file():
            raise ZooError(f"-p {as_given(name)}: there is no such file")
        return lambda: _load_file(path.resolve())
    try:
        missing = importlib.util.find_spec(name) is None
    except ModuleNotFoundError as error:
        # of the name itself, or of something that a parent package imports?
        missing = error.name is not None and f"{name}.".startswith(f"{error.name}.")
    except (ValueError, ImportError):
        missing = name not in sys.modules
    except BaseException as error:
        if is_users(error):
            raise
        missing = False  # a parent package is there and broken: importing it will tell
    if missing:
        raise ZooError(
            f"-p {as_given(name)}: no module of that name can be imported, and it is not a file"
        )
    return lambda: importlib.import_module(name)


def _load_file(path: Path) -> ModuleType:
    """Import a file as a module of its own, even beside another file of the same name.

    It may import files beside it, as `import helper` or `from . import helper`.
    """
    module_name = f"{FILE}{path.stem}_{hashlib.sha256(bytes(path)).hexdigest()[:8]}"
    folder = str(path.parent)
    spec = importlib.util.spec_from_file_location(
        module_name, path, submodule_search_locations=[folder]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pydantic look their module up
    folders = _folders() - {path.parent}
    others = _helpers_of_others(path.parent, folders)
    # after all that is installed, which stays what it is, and before other plugins' folders
    places = [place for place, entry in enumerate(sys.path) if Path(entry) in folders]
    sys.path.insert(min(places, default=len(sys.path)), folder)  # stays, for later imports
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        sys.path.remove(folder)
        raise
    finally:
        sys.modules.update(others)
    return module


def _folders() -> set[Path]:
    """Where the plugin files lie that are loaded."""
    loaded = [module for name, module in sys.modules.items() if name.startswith(FILE)]
    return {Path(module.__file__).parent for module in loaded if module.__file__}


def _helpers_of_others(folder: Path, folders: set[Path]) -> dict[str, ModuleType]:
    """Takes helpers of plugin files in other `folders` out of the way that have names of files in
    `folder`."""
    hidden = {}
    for name in {path.stem for path in folder.glob("*.py")} & sys.modules.keys():
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).parent in folders:
            hidden[name] = sys.modules.pop(name)
    return hidden
