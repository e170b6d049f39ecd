"""What foreign code must leave as it was: standard output, and settings of the whole process."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from salt_zoo.plugin.isolation.torch_modes import Modes, leave_devices

#: Read and write one setting.
Setting = tuple[Callable[[], Any], Callable[[Any], Any]]


def _torch_settings() -> dict[str, Setting]:
    """Torch's settings that decide what every network computes, once somebody imported it."""
    torch: Any = sys.modules.get("torch")
    if not hasattr(torch, "use_deterministic_algorithms"):  # perhaps half imported
        return {}
    cudnn, mkldnn = torch.backends.cudnn, torch.backends.mkldnn

    def set_device(device: Any) -> None:
        # naming the CPU would install a mode that looks at every call
        torch.set_default_device(None if str(device) == "cpu" else device)
        leave_devices(torch, str(device))

    def set_inference(on: bool) -> None:
        _entered.append(torch.inference_mode(on))
        _entered[-1].__enter__()

    def flushes() -> bool:  # nothing says so but arithmetic
        return _DENORMAL * 0.5 == 0

    return {
        "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
        "torch's default device": (lambda: str(torch.get_default_device()), set_device),
        "torch's inference mode": (torch.is_inference_mode_enabled, set_inference),
        "torch's gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
        "torch's deterministic mode": (
            torch.are_deterministic_algorithms_enabled,
            torch.use_deterministic_algorithms,
        ),
        "torch's autocast": (
            lambda: tuple(torch.is_autocast_enabled(kind) for kind in _AUTOCAST),
            lambda kinds: [
                torch.set_autocast_enabled(*one) for one in zip(_AUTOCAST, kinds, strict=True)
            ],
        ),
        "torch's anomaly mode": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        "torch's matmul precision": (
            torch.get_float32_matmul_precision,
            torch.set_float32_matmul_precision,
        ),
        "torch's cuDNN settings": (
            lambda: (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32),
            lambda values: cudnn.set_flags(
                _enabled=values[0], _benchmark=values[1], _deterministic=values[2],
                _allow_tf32=values[3],
            ),
        ),
        "torch's oneDNN": (lambda: mkldnn.enabled, lambda on: mkldnn.set_flags(_enabled=on)),
        "torch's flushing of small numbers": (flushes, torch.set_flush_denormal),
        "torch's threads": (torch.get_num_threads, torch.set_num_threads),
    }  # fmt: skip


#: By which a run is interrupted.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Below the normal numbers of Python's floats; their units flush as those of torch's do.
_DENORMAL = 1e-310
_AUTOCAST = ("cpu", "cuda")
#: Modes that stay entered as long as they are referred to.
_entered: list[Any] = []


def _first_values() -> dict[str, Any]:
    """With what torch begins, for code that was the first to import it."""
    torch: Any = sys.modules.get("torch")
    return {
        "torch's default dtype": getattr(torch, "float32", None),
        "torch's default device": "cpu",
        "torch's inference mode": False,
        "torch's gradient mode": True,
        "torch's deterministic mode": False,
        "torch's autocast": (False, False),
        "torch's anomaly mode": False,
        "torch's matmul precision": "highest",
        "torch's cuDNN settings": (True, False, False, True),
        "torch's oneDNN": True,
        "torch's flushing of small numbers": False,
    }


def _python_settings() -> dict[str, Setting]:
    """Settings of the process that turn what is harmless into an error, or that its files and its
    end depend on."""

    def errors() -> list[Any]:
        return [one for one in warnings.filters if one[0] == "error"]

    def keep_errors(kept: list[Any]) -> None:
        filters = [one for one in warnings.filters if one[0] != "error" or one in kept]
        warnings.resetwarnings()  # which lets Python look at the list anew
        warnings.filters[:] = filters  # type: ignore[index]

    settings: dict[str, Setting] = {
        "warnings into errors": (errors, keep_errors),
        "the handling of signals": (
            lambda: [signal.getsignal(one) for one in _SIGNALS],
            lambda handlers: [signal.signal(*one) for one in zip(_SIGNALS, handlers, strict=True)],
        ),
        # without one Python cannot tell of an error, nor libraries put theirs in front of it
        "the handling of uncaught errors": (_hooks_of_errors, _set_hooks_of_errors),
        # a higher one is its own affair
        "the recursion limit": (lambda: min(sys.getrecursionlimit(), 1000), sys.setrecursionlimit),
    }
    numpy: Any = sys.modules.get("numpy")
    if hasattr(numpy, "seterr"):
        settings["numpy's handling of errors"] = (numpy.geterr, lambda old: numpy.seterr(**old))
    return settings


def _hooks_of_errors() -> list[Any]:
    """Those of Python and of threads; plugins may have deleted them."""
    names = ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook"))
    return [getattr(module, name, None) for module, name in names]


def _set_hooks_of_errors(hooks: list[Any]) -> None:
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks


@contextmanager
def settings_kept() -> Iterator[list[str]]:
    """Puts settings back that the block changed. Yields their names, filled in at its end."""
    changed: list[str] = []
    modes = None
    with suppress(AttributeError):  # a torch that keeps them elsewhere: modes are not looked after
        modes = Modes.now()
    before = _values({**_torch_settings(), **_python_settings()})
    had_torch = "torch's default dtype" in before
    folder = _folder()
    try:
        yield changed
    finally:
        if folder is not None and _folder() != folder:
            changed.append("the current folder")
            with suppress(OSError):  # it is gone
                os.chdir(folder)
        with suppress(Exception):  # first: they see the calls below
            changed += modes.put_back() if modes else []
        settings = {**_python_settings(), **_torch_settings()}
        wanted = before if had_torch else {**_first_values(), **before}
        after = _values(settings)
        changed += [n for n in wanted if n in after and after[n] != wanted[n]]
        for name in changed:
            if name in wanted:
                with suppress(Exception):
                    settings[name][1](wanted[name])
        changed.sort()


def _values(settings: Mapping[str, Setting]) -> dict[str, Any]:
    found = {}
    for name, (read, _) in settings.items():
        with suppress(Exception):  # torch refuses to tell of some that were set in two ways
            found[name] = read()
    return found


@contextmanager
def exits_raised() -> Iterator[None]:
    """Inside the block `os._exit` raises SystemExit, which a frame can tell: foreign code would end
    the command without a word and, with 0, as if all were done. Processes forked inside do exit."""
    leave, process = os._exit, os.getpid()

    def told(status: int) -> NoReturn:
        if os.getpid() != process or threading.current_thread() is not threading.main_thread():
            leave(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = told
    try:
        yield
    finally:
        os._exit = leave


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return None


@contextmanager
def output_kept() -> Iterator[None]:
    """What the block prints goes to standard error, even past Python; both streams are what they
    were at its end, whatever was put in their place."""
    streams = sys.stdout, sys.stderr
    kept = {}
    for number in (1, 2):
        with suppress(OSError):  # it may be closed
            kept[number] = os.dup(number)
    with suppress(Exception):
        sys.stdout.flush()
    sys.stdout = sys.stderr
    if len(kept) == 2:
        os.dup2(kept[2], 1)
    try:
        yield
    finally:
        for stream in {sys.stdout, sys.stderr}:
            with suppress(Exception):  # foreign, or closed
                stream.flush()
        sys.stdout, sys.stderr = streams
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)
