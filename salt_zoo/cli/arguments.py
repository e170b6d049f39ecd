"""Arguments of all commands: how their errors are told, and what several commands take."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from salt_zoo.core.base.number_words import why_no_number
from salt_zoo.io.printing import say


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one visible line, whose numbers are written as in files, and whose
    options are not empty: `--size "$SIZE"` with no SIZE is not meant as the default."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.register("type", int, integer)
        self.register("type", float, number)
        self.register("type", Path, filled_path)

    def add_argument(self, *names: Any, **more: Any) -> argparse.Action:
        action = super().add_argument(*names, **more)
        if action.option_strings and action.type is None and action.nargs is None:
            action.type = filled
        return action

    def error(self, message: str) -> NoReturn:
        say(f"error: {message}; see {self.prog} --help")
        raise SystemExit(2)


def integer(text: str) -> int:
    """The argument of an option that takes an integer.

    Raises:
        ValueError, argparse.ArgumentTypeError: it is none.
    """
    return int(_written(text))


def number(text: str) -> float:
    """The argument of an option that takes a number; whether it may be infinite is the option's.

    Raises:
        ValueError, argparse.ArgumentTypeError: it is none.
    """
    return float(_written(text))


def filled(text: str) -> str:
    """The argument of an option that takes text.

    Raises:
        argparse.ArgumentTypeError: it is empty.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; leave the option out, or give a value")
    return text


def filled_path(text: str) -> Path:
    """The argument that is a path; an empty one would be the current folder.

    Raises:
        argparse.ArgumentTypeError: it is empty.
    """
    return Path(filled(text))


def _written(text: str) -> str:
    """`text`, unless it is a number to Python alone."""
    if why := why_no_number(text):
        raise argparse.ArgumentTypeError(f"{why}, not {text!r}")
    if not text.isascii():
        raise ValueError("digits are 0 to 9")
    return text


def add_set_option(parser: argparse.ArgumentParser, example: str) -> None:
    """`--set`, which may be repeated; read by `salt_zoo.config.overrides`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="a.b=VALUE",
        dest="overrides",
        help=f"override a key, e.g. {example}; VALUE is YAML: text, a number, true, false, null, "
        "[a list] or {a: group}; quote a key that contains dots",
    )


def add_attention_option(parser: argparse.ArgumentParser) -> None:
    """`--attention`, what `execution.attention` is to a training."""
    parser.add_argument(
        "--attention",
        default="native",
        metavar="NAME",
        help="what computes attention, by diffusers' name: flash, _flash_3, sage, _native_cudnn, "
        "... (default: native, torch's)",
    )


def folder(text: str) -> Path:
    """A folder that is given as an option; an empty one would be the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty; give a folder")
    return Path(text)
