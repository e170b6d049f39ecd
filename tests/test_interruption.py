"""Signals: a wish to come to an end where a stream is written, else an exception that cleans up."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from datetime import timedelta

import pytest

import benchmarks.perf
import benchmarks.report.__main__
import benchmarks.run
import salt_zoo.__main__
from salt_zoo.cli import guarded
from salt_zoo.core.base.interrupts import Stopped, is_users
from salt_zoo.io.signals import ENDING, graceful_shutdown, signals_clean_up, termination_told


@pytest.mark.parametrize("number", ENDING)
def test_a_stream_hears_every_signal_that_ends(number):
    before = signal.getsignal(number)
    with graceful_shutdown() as stopped:
        assert not stopped()
        os.kill(os.getpid(), number)
        assert stopped()
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_cleans_up(number, capsys):
    cleaned = []

    def run() -> None:
        try:
            os.kill(os.getpid(), number)
        finally:
            cleaned.append(True)

    assert guarded(run) == 128 + number
    assert cleaned
    assert capsys.readouterr().err == "interrupted; run the same command again to resume\n"
    assert signal.getsignal(number) is signal.SIG_DFL


class Ended:
    """Asks the process to end in its destructor, in which Python ignores every error."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)
        for _ in range(1000):  # until Python looks
            pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_destructor_is_not_lost(number, capsys):
    began = time.monotonic()

    def run() -> None:
        made = Ended(number)
        del made
        time.sleep(30)

    assert guarded(run) == 128 + number
    assert time.monotonic() - began < 20
    assert capsys.readouterr().err == "interrupted; run the same command again to resume\n"


def test_under_nohup_a_closed_terminal_ends_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_clean_up(), graceful_shutdown() as stopped:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stopped()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_one_of_several_processes_ends_at_once(monkeypatch):
    """It may wait for another one in a library that lets no exception through."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with signals_clean_up():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(Stopped), signals_clean_up():
        os.kill(os.getpid(), signal.SIGTERM)


def test_an_interrupt_is_the_users_where_a_signal_came():
    """Inside of a command: what code raises by itself is an error of that code."""
    assert is_users(KeyboardInterrupt())  # Python's own handler may have raised it
    with signals_clean_up():
        assert not is_users(KeyboardInterrupt())
        assert not is_users(SystemExit(0))
        with pytest.raises(KeyboardInterrupt) as caught:
            try:
                os.kill(os.getpid(), signal.SIGINT)
            finally:
                raise KeyboardInterrupt  # as libraries do that have something to clean up
        assert is_users(caught.value)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def tell_and_sleep(place: int) -> None:
    os.write(place, b"1")
    for _ in range(600):  # Python hears of a signal that comes right before a sleep after it
        time.sleep(0.1)


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("catching", [signals_clean_up, graceful_shutdown])
def test_a_process_that_is_forked_ends_as_ever(number, catching, capfd):
    """multiprocessing ends its processes by SIGTERM, and waits for their end."""
    begun, told = os.pipe()
    with catching():
        child = multiprocessing.get_context("fork").Process(target=tell_and_sleep, args=(told,))
        child.start()
        os.read(begun, 1)  # a signal that comes before it is itself is its parent's to note
        os.kill(child.pid, number)
        child.join(20)
        code = child.exitcode
        child.kill()
    os.close(begun)
    os.close(told)
    assert code == (1 if number == signal.SIGINT else -number)  # Python's KeyboardInterrupt is 1
    assert "Stopped" not in capfd.readouterr().err


def wait_where_python_calls_no_handler() -> None:
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    print("waits", file=sys.stderr, flush=True)
    store.wait(["never"], timedelta(seconds=60))


def test_what_torchrun_ends_ends_though_nothing_can_be_told(monkeypatch):
    """A log on a full disk."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "")
    begun, told = os.pipe()

    def start() -> None:
        sys.stderr = open("/dev/full", "w")  # noqa: SIM115
        with termination_told(lambda: print("why", file=sys.stderr, flush=True)):
            tell_and_sleep(told)

    child = multiprocessing.get_context("fork").Process(target=start)
    child.start()
    os.close(told)
    os.read(begun, 1)
    child.terminate()
    child.join(20)
    code = child.exitcode
    child.kill()
    os.close(begun)
    assert code == 128 + signal.SIGTERM


def fork_one_that_ends_and_sleep() -> None:
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    child.terminate()
    child.join(20)
    print("waits", child.exitcode, file=sys.stderr, flush=True)
    time.sleep(60)


@pytest.mark.parametrize(
    ("run", "first"),
    [
        (wait_where_python_calls_no_handler, "waits"),
        (fork_one_that_ends_and_sleep, f"waits {-signal.SIGTERM}"),
    ],
)
def test_what_torchrun_ends_says_why(run, first, monkeypatch, tmp_path):
    """A process that waits for one that was killed cannot know it before torchrun ends it."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "")  # nobody to ask who speaks
    said = tmp_path / "said"

    def start() -> None:
        with said.open("w", buffering=1) as sys.stderr:
            guarded(run)

    child = multiprocessing.get_context("fork").Process(target=start)
    child.start()
    while child.is_alive() and not (said.exists() and "waits" in said.read_text()):
        time.sleep(0.01)
    time.sleep(0.05)  # until it is in the wait
    child.terminate()
    child.join(30)
    code = child.exitcode
    child.kill()
    lines = said.read_text().splitlines()
    assert (code, lines[0], len(lines)) == (128 + signal.SIGTERM, first, 2)
    assert "another process of this run has ended unexpectedly" in lines[1]
    assert "run the same command again" in lines[1]


MAINS = {
    "salt-zoo": (salt_zoo.cli.main, salt_zoo.cli),
    "run": (benchmarks.run.main, benchmarks.run),
    "perf": (benchmarks.perf.main, benchmarks.perf),
    "report": (benchmarks.report.__main__.main, benchmarks.report.__main__),
}


@pytest.mark.parametrize("name", MAINS)
def test_ctrl_c_before_the_command_has_begun_is_no_traceback(name, monkeypatch, capsys):
    def interrupted(**options):
        raise KeyboardInterrupt

    command, module = MAINS[name]
    monkeypatch.setattr(module, "Parser", interrupted)
    assert command([]) == 130
    assert capsys.readouterr() == ("", "")


def test_nor_while_the_command_is_imported(monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(salt_zoo.cli, "main", interrupted)
    assert salt_zoo.__main__.main() == 130


def test_commands_listen_before_torch_is_imported(shell):
    """That takes seconds, in which Ctrl-C would be a traceback."""
    mains = "salt_zoo.cli, benchmarks.run, benchmarks.perf, benchmarks.report.__main__"
    code = f"import sys, {mains}; print({{'torch', 'pandas', 'matplotlib'}} & {{*sys.modules}})"
    assert shell("-c", code).out == "set()\n"
