"""Lets a torchvision wheel built for CUDA be imported beside a torch built for the CPU.

Only such wheels may be at hand where tests run; there `import torchvision` fails with "operator
torchvision::nms does not exist", because Python code of torchvision refers to operators of its
compiled library, which does not load without CUDA. Declaring their schemas first suffices for all
that does not call them: transforms, models, open_clip, pyiqa. Importing this module (or `pytest -p
tests.torchvision_shim`) installs the shim; where torch and torchvision fit it does nothing. It
belongs to the tests and is no part of the product.
"""

from __future__ import annotations

import importlib.abc
import importlib.metadata
import sys
from typing import Any

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[Any] = []  # a schema lives as long as its library object


class _Finder(importlib.abc.MetaPathFinder):
    """Finds nothing: it declares the operators when torchvision is about to be imported."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname == "torchvision" and not _libraries and _mismatched():
            import torch

            library = torch.library.Library("torchvision", "FRAGMENT")
            for schema in _SCHEMAS:
                library.define(schema)
            _libraries.append(library)
        return None


def _mismatched() -> bool:
    import torch

    try:
        version = importlib.metadata.version("torchvision")
    except importlib.metadata.PackageNotFoundError:
        return False
    # PyPI's wheels say nothing; those of PyTorch's own index say +cpu or +cu128
    return torch.version.cuda is None and "+cpu" not in version


def install() -> None:
    """Put the finder first, once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


install()
