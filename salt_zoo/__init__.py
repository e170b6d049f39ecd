"""Salt Zoo: distillation methods for video diffusion, compared under control.

Importing this package is cheap: nothing here imports torch.
"""

import pluggy

__version__ = "0.1.0"

#: Marks a function of a plugin as the implementation of a hook of `salt_zoo.hookspecs`.
hookimpl = pluggy.HookimplMarker("salt_zoo")

__all__ = ["__version__", "hookimpl"]
