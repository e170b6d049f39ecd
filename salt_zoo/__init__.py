"""Salt Zoo: distillation methods for video diffusion, compared under control.

Importing this package is cheap: nothing here imports torch.
"""

import pluggy

__version__ = "0.1.0"

#: Raised whenever the core (trainer, rollout, flow, draws) would train or sample other numbers from
#: the same configuration; trainings of an older one are not reused.
TRAINING_VERSION = 2

#: Marks a plugin's function as the implementation of a hook of `salt_zoo.plugin.registration.spec`.
hookimpl = pluggy.HookimplMarker("salt_zoo")

__all__ = ["TRAINING_VERSION", "__version__", "hookimpl"]
