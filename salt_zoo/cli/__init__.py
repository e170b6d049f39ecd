"""The command `salt-zoo`. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import functools
import os
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from salt_zoo import __version__
from salt_zoo.cli import (
    export,
    list_parts,
    new_part,
    prepare,
    pretrain,
    sample,
    show_part,
    stream,
    train,
)
from salt_zoo.cli.arguments import Parser
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.imports import failed_import
from salt_zoo.core.base.launchers import check_launch, unused
from salt_zoo.core.base.ranks import end_process, is_alone, is_first_of_machine, is_main_process
from salt_zoo.core.base.variables import is_on
from salt_zoo.io.files.storage import FULL
from salt_zoo.io.printing import lenient_outputs, results, results_only, say
from salt_zoo.io.signals import exit_code, signals_clean_up, termination_told
from salt_zoo.io.threads import threads_told
from salt_zoo.plugin.isolation.foreign import TRACEBACK, blaming, explain, lacks_memory
from salt_zoo.plugin.isolation.surroundings import exits_raised
from salt_zoo.plugin.manager import Zoo, load_zoo, refuse_broken

#: What a process of several says where it does not fail by itself.
LOST = "another process of this run has ended unexpectedly"

#: One that has been asked to end does so once its error is printed.
_telling = threading.Lock()

COMMANDS = (list_parts, show_part, train, sample, stream, export, prepare, pretrain, new_part)


class Command(Protocol):
    """Takes a command line, or that of the process, and returns its exit code."""

    def __call__(self, arguments: Sequence[str] | None = None) -> int: ...


def interruptible(command: Command) -> Command:
    """A command's `main` of which Ctrl-C is no traceback before its work has begun, nor at its end;
    in between `guarded` says how to go on."""

    @functools.wraps(command)
    def main(arguments: Sequence[str] | None = None) -> int:
        try:
            return command(arguments)
        except KeyboardInterrupt as error:
            return exit_code(error)

    return main


@interruptible
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 for a failure, 2 for a user's mistake."""
    parser = Parser(
        prog="salt-zoo",
        description="Train, sample and export few-step video diffusion students.",
        epilog=f"Set {TRACEBACK}=1 in the environment for full tracebacks.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        sub = commands.add_parser(command.NAME, help=command.HELP, description=command.HELP)
        add_plugin_option(sub)
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    options = parser.parse_args(arguments)
    shows_broken = options.run is list_parts.run
    code = guarded(lambda: with_plugins(options.run, options, shows_broken))
    return code if arguments is not None else end_process(code)


def add_plugin_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-p",
        "--plugin",
        action="append",
        default=[],
        metavar="PLUGIN",
        help="load a plugin from a module or a .py file (repeatable)",
    )


def zoo_of(options: argparse.Namespace, shows_broken: bool = False) -> Zoo:
    """The zoo with the plugins that `-p` names; a line on stderr for each broken one.

    Raises:
        ZooError: a plugin that `-p` names does not exist, or is broken, unless the command
            `shows_broken` ones.
    """
    zoo = load_zoo(options.plugin)
    if not shows_broken:
        refuse_broken(zoo)
    if is_first_of_machine():
        for notice in zoo.notices:
            say(f"warning: {notice}")
        for broken in zoo.broken:
            say(f"warning: plugin {broken.plugin!r} is not used: {broken.reason}")
    return zoo


def with_plugins(
    run: Callable[[argparse.Namespace, Zoo], int | None],
    options: argparse.Namespace,
    shows_broken: bool = False,
) -> int | None:
    """Run a command with its plugins (see `zoo_of`), whose errors name them."""
    zoo = zoo_of(options, shows_broken)
    with blaming(zoo):
        return run(options, zoo)


def guarded(run: Callable[[], int | None]) -> int:
    """Call `run`; an error that a person can mend becomes one line on stderr and an exit code.

    What is left is a bug, and shows its traceback, as everything does where the environment
    variable SALT_ZOO_TRACEBACK is on.
    """
    lenient_outputs()
    try:
        check_launch()
    except ZooError as error:
        say(f"error: {error}")
        return error.exit_code
    for line in unused() if is_first_of_machine() else ():
        say(f"note: {line}")
    with signals_clean_up(), termination_told(_tell_of_end), results_only(), exits_raised():
        if is_on(TRACEBACK):
            return run() or 0
        with threads_told():
            return _guarded(run)


def _guarded(run: Callable[[], int | None]) -> int:
    try:
        code = run() or 0
        results().flush()  # a full disk is found here, and not when nobody listens any more
        return code
    except ZooError as error:
        _tell(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt as error:
        if is_main_process():
            say("interrupted; run the same command again to resume")
        return exit_code(error)
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), results().fileno())
        return 0
    except OSError as error:
        if error.errno in FULL:
            _tell(f"error: {error.filename or 'the disk'}: {error.strerror}; free some space")
            return 1
        if line := failed_import(error):  # of a library that is not there, for instance
            _tell(f"error: {line}")
            return 2
        if error.filename is None or not error.strerror:
            raise
        _tell(f"error: {error.filename}: {error.strerror}")  # a file, and so a person's to mend
        return 1
    except Exception as error:
        if lacks_memory(error):
            _tell(f"error: {explain(error)}")
            return 1
        if line := failed_import(error):
            _tell(f"error: {line}")
            return 2
        if not is_alone():
            from salt_zoo.io.distributed import has_lost_another, may_speak

            if has_lost_another(error):
                _tell(f"error: {LOST}; run the same command again to go on")
                return 1
            if not may_speak():
                return 1
        raise


def _tell_of_end() -> None:
    """SIGTERM comes from torchrun, where another process has ended, or where one ends torchrun."""
    _tell(f"error: {LOST}, or all are asked to end (SIGTERM); run the same command again to go on")


def _tell(line: str) -> None:
    """The error that ends this process; of several that end because of one, or all alike, the first
    one alone says so."""
    with _telling:
        if not is_alone():
            from salt_zoo.io.distributed import may_speak

            if not may_speak():
                return
        say(line)
