"""Options are what was meant: numbers as in files, nothing that Python alone reads as one, and no
empty ones."""

from __future__ import annotations

import contextlib
import io
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import salt_zoo.cli as cli_command
from benchmarks import perf as perf_command
from benchmarks import run as study_command
from benchmarks.report import __main__ as report_command
from salt_zoo.cli.arguments import Parser

KINDS = {int: "[-+]?[0-9]+", float: r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"}


@given(st.text("0123456789_+.eExn ٣", min_size=1, max_size=6), st.sampled_from([int, float]))
@example("1_000", int)
@example("1_0.5", float)
@example("٣", int)
@example(" 8", int)
def test_an_option_takes_what_a_file_takes(word, kind):
    parser = Parser(prog="p")
    parser.add_subparsers().add_parser("c").add_argument("--number", type=kind)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            found = parser.parse_args(["c", f"--number={word}"]).number
    except SystemExit as ended:
        lines = said.getvalue().splitlines()
        assert ended.code == 2 and lines[0].startswith("error: argument --number: ")
        assert lines[-1].endswith("see p c --help")
        return
    assert re.fullmatch(KINDS[kind], word) and not re.match("[-+]?0[0-9]", word)
    assert found == kind(word)


class Found(Exception):
    """A command's parser, in place of what it would do."""


def parsers() -> dict[str, Parser]:
    """Of every command, by name."""

    def stop(parser, arguments=None):
        raise Found(parser)

    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parser, "parse_args", stop)
        for name, main in MAINS.items():
            with pytest.raises(Found) as stopped:
                main([])
            (found[name],) = stopped.value.args
    (commands,) = (one for one in found.pop("salt-zoo")._actions if one.choices)
    return found | commands.choices


MAINS = {
    "salt-zoo": cli_command.main,
    "run": study_command.main,
    "perf": perf_command.main,
    "report": report_command.main,
}
PARSERS = parsers()


@pytest.mark.parametrize("command", PARSERS)
@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_option_is_refused(command, value, capsys):
    """`--size "$SIZE"` where there is no SIZE is not meant as the default."""
    parser = PARSERS[command]
    options = [one for one in parser._actions if one.option_strings and one.nargs is None]
    assert options
    for option in options:
        with pytest.raises(SystemExit) as ended:
            parser.parse_args([f"{option.option_strings[-1]}={value}"])
        error = capsys.readouterr().err
        assert ended.value.code == 2 and error.count("\n") == 1
        assert error.startswith(f"error: argument {'/'.join(option.option_strings)}: ")


@pytest.mark.parametrize("option", ["--seeds=1_0", "--nfe=1_0", "--gpus=1_0", "--nfe=٣"])
def test_a_study_is_not_run_with_another_number(option, capsys):
    try:
        code = study_command.main(["quick", "--dry-run", option])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and option[:5] in error
