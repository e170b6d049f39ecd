"""Libraries of the extra `metrics`, imported when a metric is made."""

from __future__ import annotations

import importlib
from typing import Any

from salt_zoo.core.base.errors import MissingPackage, ZooError, reason

INSTALL = "pip install 'salt-zoo[metrics]'"


def need(module: str, metric: str) -> Any:
    """The module, imported.

    Raises:
        MissingPackage: it is missing; the line says what to install.
        ZooError: it is broken.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingPackage(f"metric {metric!r}: {error.name} is missing; {INSTALL}") from None
    except Exception as error:  # a torchvision of another build raises RuntimeError
        raise ZooError(
            f"metric {metric!r}: {module} cannot be imported ({reason(error)}); "
            f"torch, torchvision and {module} must fit together: {INSTALL}"
        ) from None
