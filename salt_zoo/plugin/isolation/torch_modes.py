"""Modes of torch that foreign code has entered: they see every operation of the process until
somebody leaves them."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Modes:
    """The modes that are entered in this thread, the outermost first.

    Attributes:
        function: of `torch.overrides`, without those that stand for the default device.
        dispatch: of `torch.utils._python_dispatch`.
    """

    function: list[Any] = field(default_factory=list)
    dispatch: list[Any] = field(default_factory=list)

    @classmethod
    def now(cls) -> Modes:
        """Those of this moment; none where torch has not been imported (wholly)."""
        torch: Any = sys.modules.get("torch")
        if not hasattr(torch, "use_deterministic_algorithms"):
            return cls()
        return cls(
            [mode for mode in _function_modes(torch) if not _is_device(torch, mode)],
            torch.utils._python_dispatch._get_current_dispatch_mode_stack(),
        )

    def put_back(self) -> list[str]:
        """Leave the modes that were entered since, and enter again what was left; returns which
        kinds of modes have changed."""
        torch: Any = sys.modules.get("torch")
        now, changed = Modes.now(), []
        if not _same(now.function, self.function):
            changed.append("torch's function modes")
            devices = [mode for mode in _function_modes(torch) if _is_device(torch, mode)]
            _set_function_modes(torch, [*devices, *self.function])
        if not _same(now.dispatch, self.dispatch):
            changed.append("torch's dispatch modes")
            mode_type = torch.utils._python_dispatch.TorchDispatchMode
            kept = _common(now.dispatch, self.dispatch)
            for mode in reversed(now.dispatch[kept:]):
                # torch's own end of a mode: the plugin's class may have another
                mode_type.__exit__(mode, None, None, None)
            for mode in self.dispatch[kept:]:
                mode_type.__enter__(mode)
        return changed


def leave_devices(torch: Any, device: str) -> None:
    """Leave contexts of devices (`with torch.device(...)`) until `device` is the default."""
    for mode in reversed(_function_modes(torch)):
        if _is_device(torch, mode) and str(torch.get_default_device()) != device:
            _set_function_modes(torch, [one for one in _function_modes(torch) if one is not mode])


def _function_modes(torch: Any) -> list[Any]:
    found: list[Any] = torch.overrides._get_current_function_mode_stack()
    return found


def _set_function_modes(torch: Any, modes: list[Any]) -> None:
    while _function_modes(torch):
        torch.overrides._pop_mode()
    for mode in modes:
        torch.overrides._push_mode(mode)


def _is_device(torch: Any, mode: Any) -> bool:
    return isinstance(mode, torch.utils._device.DeviceContext)


def _same(some: list[Any], others: list[Any]) -> bool:
    return len(some) == len(others) == _common(some, others)


def _common(some: list[Any], others: list[Any]) -> int:
    """How many modes both begin with."""
    count = 0
    for one, other in zip(some, others, strict=False):
        if one is not other:
            break
        count += 1
    return count
