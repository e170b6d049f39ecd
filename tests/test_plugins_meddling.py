"""Plugins that alter what is not theirs: tables of other plugins, and settings of the process."""

from __future__ import annotations

import json
import sys

import pytest

from salt_zoo.plugin.manager import load_zoo
from tests.test_plugins import names, plugin_file

LOADED = """
import asyncio, atexit, os, sys
print("at import")
os.write(1, b"raw")
from salt_zoo import hookimpl
"""

#: What else a plugin can do wrong while it is loaded, and a part of the reason that is given.
MEDDLES = {
    "empties a table": ("zoo.methods._entries.clear()", "altered method"),
    "empties a table and raises": ("zoo.methods._entries.clear(); 1 / 0", "ZeroDivisionError"),
    "replaces a part": ("zoo.methods._entries['dmd'] = None", "altered method 'dmd'"),
    "adds what is no entry": ("zoo.methods._entries['mine'] = None", "without zoo.methods.add"),
    "empties the list of plugins": ("zoo.plugins.clear()", "altered zoo.plugins"),
    "replaces the list of plugins": ("zoo.plugins = []", "altered zoo.plugins"),
    "has a name too long for a file": (
        "zoo.metrics.add('m' * 300, len, 'x')",
        "at most 80 characters",
    ),
    "replaces a table": ("zoo.methods = {}", "replaced zoo.methods"),
    "cannot tell why": (
        "raise type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})()",
        "its message cannot be shown",
    ),
}


@pytest.mark.parametrize("how", MEDDLES)
def test_a_plugin_that_meddles_takes_nothing_along(how, tmp_path, zoo, cli):
    body, reason = MEDDLES[how]
    source = LOADED + f"@hookimpl\ndef register(zoo):\n    {body}\n"
    ended = cli("list", "--json", "-p", plugin_file(tmp_path, source))
    listed = json.loads(ended.out)
    (broken,) = listed.pop("broken")
    assert reason in broken["reason"]
    assert {kind: [row["name"] for row in rows] for kind, rows in listed.items()} == names(zoo)


HOOKS = {
    "async": "@hookimpl\nasync def register(zoo): zoo.metrics.add('mine', print, 'x')",
    "a generator": "@hookimpl\ndef register(zoo):\n    yield zoo.metrics.add('mine', print, 'x')",
}


@pytest.mark.parametrize("how", HOOKS)
def test_a_hook_that_nobody_would_run_is_broken(how, tmp_path):
    zoo = load_zoo([plugin_file(tmp_path, LOADED + HOOKS[how])])
    assert [f"is {how}" in broken.reason for broken in zoo.broken] == [True]


#: Enters a mode of torch that answers each operation with zeros.
MODE = """
class Mode(torch.{0}):
    def __torch_{1}__(self, *arguments, **more):
        return 0

    def __exit__(self, *error):
        raise RuntimeError

Mode().__enter__()"""

SETTINGS = {
    "torch's default dtype": "torch.set_default_dtype(torch.float64)",
    "torch's default device": "torch.set_default_device('meta')",
    "torch's gradient mode": "torch.set_grad_enabled(False)",
    "torch's deterministic mode": "torch.use_deterministic_algorithms(True)",
    "torch's threads": "torch.set_num_threads(torch.get_num_threads() + 1)",
    "torch's inference mode": "mode = torch.inference_mode(); mode.__enter__()",
    "torch's autocast": "torch.autocast('cpu', dtype=torch.bfloat16).__enter__()",
    "torch's anomaly mode": "torch.autograd.set_detect_anomaly(True)",
    "torch's matmul precision": "torch.set_float32_matmul_precision('medium')",
    "torch's cuDNN settings": "torch.backends.cudnn.benchmark = True",
    "torch's oneDNN": "torch.backends.mkldnn.enabled = False",
    "torch's flushing of small numbers": "torch.set_flush_denormal(True)",
    "numpy's handling of errors": "import numpy; numpy.seterr(all='raise')",
    "warnings into errors": "import warnings; warnings.simplefilter('error')",
    "the recursion limit": "import sys; sys.setrecursionlimit(500)",
    "torch's function modes": MODE.format("overrides.TorchFunctionMode", "function"),
    "torch's dispatch modes": MODE.format("utils._python_dispatch.TorchDispatchMode", "dispatch"),
    "the handling of uncaught errors": "sys.excepthook = None; del sys.unraisablehook",
    "the handling of signals": "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "the current folder": "os.chdir('/')",
}


@pytest.mark.parametrize("what", SETTINGS)
def test_a_setting_of_the_process_is_put_back_and_told(what, tmp_path):
    import os
    import signal
    import warnings

    import numpy as np
    import torch

    def state():
        threads = torch.get_num_threads()
        flags = torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()
        flags += torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        flags += torch.is_anomaly_enabled(), torch.get_float32_matmul_precision()
        flags += torch.backends.cudnn.benchmark, torch.backends.mkldnn.enabled
        flags += bool(torch.tensor(1e-39).mul(0.5)), np.geterr(), sys.getrecursionlimit()
        errors = [one for one in warnings.filters if one[0] == "error"]
        flags += signal.getsignal(signal.SIGTERM), errors, sys.excepthook, sys.unraisablehook
        flags += type(torch.ones(2).sum().add(1)), float(torch.ones(2).sum())
        return torch.get_default_dtype(), torch.zeros(1).device, threads, flags, os.getcwd()

    before = state()
    source = f"import torch\n{LOADED}{SETTINGS[what]}\n@hookimpl\ndef register(zoo): pass\n"
    path = plugin_file(tmp_path, source)
    zoo = load_zoo([path])
    assert state() == before
    # (the inference mode is without gradients, too)
    told = f"plugin {path!r} changed {what} while it was loaded, which is undone"
    assert told in zoo.notices and len(zoo.notices) <= 2 and path in zoo.plugins


def test_modes_are_those_of_before(tmp_path):
    """Whether foreign code leaves modes of its own, a device's context, or one of ours."""
    import torch
    from torch.overrides import BaseTorchFunctionMode, TorchFunctionMode, _pop_mode
    from torch.utils._python_dispatch import TorchDispatchMode

    from salt_zoo.plugin.isolation.surroundings import settings_kept

    class Counter(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, function, types, arguments=(), more=None):
            self.seen += 1
            return function(*arguments, **(more or {}))

    ours = BaseTorchFunctionMode()
    with Counter() as counter, ours:
        torch.ones(2)
        with settings_kept() as changed:
            assert _pop_mode() is ours
            torch.device("meta").__enter__()
            TorchFunctionMode().__enter__()
            counter.__exit__(None, None, None)
        assert changed == [
            "torch's default device", "torch's dispatch modes", "torch's function modes"
        ]  # fmt: skip
        assert torch.ones(2, 2).device.type == "cpu"
        assert torch.overrides._get_current_function_mode_stack() == [ours]
        assert counter.seen == 2
    assert torch.overrides._get_current_function_mode_stack() == []


NOISY = (
    LOADED
    + """
import io, threading, time
atexit.register(print, "at the end")
threading.Thread(target=time.sleep, args=(600,)).start()
sys.stdout = io.StringIO()

@hookimpl
def register(zoo):
    print("in register")
"""
)


def test_standard_output_and_the_end_are_the_commands(tmp_path, shell):
    ended = shell("-m", "salt_zoo", "list", "--json", "-p", plugin_file(tmp_path, NOISY))
    assert ended.code == 0
    json.loads(ended.out)
    assert "raw" in ended.err and "in register" not in ended.out
