"""The command `salt-zoo`. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from salt_zoo import __version__
from salt_zoo.cli import list_parts, pretrain, sample, train
from salt_zoo.errors import ZooError
from salt_zoo.plugins import Zoo, load_zoo

COMMANDS = (list_parts, train, sample, pretrain)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 for a failure, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(
        prog="salt-zoo", description="Distillation methods for video diffusion, under control."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        sub = commands.add_parser(command.NAME, help=command.HELP, description=command.HELP)
        add_plugin_option(sub)
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    options = parser.parse_args(arguments)
    return guarded(lambda: options.run(options, zoo_of(options)))


def add_plugin_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-p",
        "--plugin",
        action="append",
        default=[],
        metavar="PLUGIN",
        help="load a plugin from a module or a .py file (may be repeated)",
    )


def zoo_of(options: argparse.Namespace) -> Zoo:
    """The zoo with the plugins that `-p` names; a line on stderr for each broken one."""
    zoo = load_zoo(options.plugin)
    for broken in zoo.broken:
        print(f"warning: plugin {broken.plugin!r} is not used: {broken.reason}", file=sys.stderr)
    return zoo


def guarded(run: object) -> int:
    """Call `run`; a ZooError becomes one line on stderr and an exit code."""
    try:
        return int(run() or 0)  # type: ignore[operator]
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130
